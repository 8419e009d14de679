"""Mutants of kernels: defects made on purpose, one at a time, that the emulator's tests must see.

    python -m tests.mutants [--kernel NAME] [--operator NAME]

prints how many each operator made of each kernel and every one that survived.
"""

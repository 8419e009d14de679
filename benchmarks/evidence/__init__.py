"""What can be known of the CUDA kernels with no GPU: `make evidence`.

Each case, an op on tensors of one shape and layout, is run by the emulator, which counts; what ptxas and the machine
code say of the same kernels is read out of the shipped library. The files evidence.csv and EVIDENCE.md in the folder
above keep the result, and tests/test_evidence.py holds them to the bounds of bounds.py.
"""

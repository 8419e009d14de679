"""Proofs by rule that a survivor is equivalent.

Each rule reads the kernel's own PTX and what the cases ran of it; it knows no kernel by name.
"""

import re
from collections import defaultdict
from dataclasses import replace
from functools import cache

import numpy as np

from tests.emulator import Module
from tests.emulator.ptx import Immediate, Register, Special

from .cases import DEVICE
from .operators import ACCESS, names_in


def hole(subject, outcome):
    """Why a survivor differs all the same, or None."""
    return narrow_division(subject, outcome) if outcome.at >= 0 else None


def equivalent(subject, outcome):
    """A reason, or None. `subject` has the kernel and its cases, `outcome` what changed."""
    for rule in RULES:
        reason = rule(subject, outcome)
        if reason:
            return reason
    return None


def never_run(subject, outcome):
    """Code behind a branch that the thread's number alone decides, the same way for all threads of the block."""
    if outcome.at >= 0 and outcome.at not in flow(subject).live:
        return "no thread of this kernel's block gets here: branches before it depend on the thread's number alone"
    return None


def decided_branch(subject, outcome):
    if outcome.operator != "drop guard" or outcome.at < 0:
        return None
    taken = flow(subject).decided.get(outcome.at)
    if taken is not None and taken == (outcome.change == "for every thread"):
        return "the thread's number alone decides this branch, the same way for every thread of the block"
    return None


def same_for_every_thread(subject, outcome):
    """A comparison that depends on the thread's number alone, and says the same of each as before."""
    if outcome.operator != "widen compare":
        return None
    numbers = flow(subject).thread_slice(subject.kernel.instructions[outcome.at].operands[0], outcome.at + 1)
    block = block_of(subject)
    if numbers is None or block is None:
        return None
    changed = next(
        mutant.new
        for mutant in subject.mutants()
        if (mutant.at, mutant.operator, mutant.change) == (outcome.at, outcome.operator, outcome.change)
    )
    name = changed.operands[0].name
    before = [subject.kernel.instructions[number] for number in sorted(numbers)]
    after = [changed if number == outcome.at else subject.kernel.instructions[number] for number in sorted(numbers)]
    if for_every_thread(subject, before, name, block) == for_every_thread(subject, after, name, block):
        return "the comparison says the same of every thread of the block"
    return None


# The division of 64-bit numbers: nvcc divides in 32 bits where both numbers have no more.
HIGH_HALF = Immediate(-(1 << 32))


def slow_division(subject, outcome):
    """Always dividing in 64 bits gives the same quotient."""
    if outcome.operator == "drop guard" and outcome.change == "for no thread" and guards_division(subject, outcome.at):
        return "the division in 64 bits that is left gives the same quotient as the one in 32"
    return None


def narrow_division(subject, outcome):
    """A hole: dividing in 32 bits differs only for numbers of 2^32 and more."""
    if (
        outcome.operator == "drop guard"
        and outcome.change == "for every thread"
        and guards_division(subject, outcome.at)
    ):
        return "only work of 2^32 parts and more, which takes too long to emulate, needs the division in 64 bits"
    return None


def guards_division(subject, at):
    """Whether a branch leads to a division in 32 bits if both numbers fit, past the same one in 64."""
    kernel = subject.kernel
    branch = kernel.instructions[at]
    if branch.guard is None or branch.guard_negated or not branch.opcode.startswith("bra"):
        return False
    test = flow(subject).only_maker(branch.guard.name)
    if test is None or not re.fullmatch(r"setp\.eq\.[sub]64", test.opcode) or test.operands[2] != Immediate(0):
        return False
    masked = flow(subject).only_maker(getattr(test.operands[1], "name", ""))
    if masked is None or masked.opcode != "and.b64" or masked.operands[2] != HIGH_HALF:
        return False
    target = kernel.labels[branch.operands[0].name]
    slow = kernel.instructions[at + 1].opcode
    short = [each.opcode for each in kernel.instructions[target : target + 4]]
    return re.fullmatch(r"(div|rem)\.[su]64", slow) is not None and any(
        re.match(r"(div|rem)\.u32", each) for each in short
    )


def idle_barrier(subject, outcome):
    """A barrier with no access to shared memory since the last one, or none until the next: there the order is kept.

    Global memory counts too in a kernel that may read from it what it wrote.
    """
    if outcome.operator != "delete barrier" or outcome.change != "deleted":
        return None
    instructions = subject.kernel.instructions
    if not instructions[outcome.at].opcode.startswith("bar.sync"):
        return None
    graph = flow(subject)
    if not _meets_access(instructions, graph.after, graph.after[outcome.at]):
        return "no shared memory is used between this barrier and the next"
    if not _meets_access(instructions, graph.before, graph.before[outcome.at]):
        return "no shared memory is used between this barrier and the one before"
    return None


def _meets_access(instructions, neighbours, start):
    """Whether some path from `start` meets an access to shared memory before a barrier of the whole block."""
    opcodes = [each.opcode for each in instructions]
    writes = any(re.match(r"st\b.*\.global", each) for each in opcodes)
    reads = any(re.match(r"(ld\b.*\.global(?!.*\.nc)|atom|red|membar|fence)", each) for each in opcodes)
    private = r"^ld\.(param|const|local)|^st\.local" + ("" if writes and reads else r"|^(ld|st)\b.*\.global")
    seen, waiting = set(), list(start)
    while waiting:
        at = waiting.pop()
        if at in seen or at >= len(instructions):
            continue
        seen.add(at)
        opcode = instructions[at].opcode
        if re.fullmatch(r"bar\.sync", opcode) and instructions[at].guard is None:
            continue
        if ACCESS.fullmatch(opcode) and not re.search(private, opcode):
            return True
        waiting += neighbours[at]
    return False


RULES = (never_run, decided_branch, same_for_every_thread, slow_division, idle_barrier)


class Flow:
    """A kernel's paths, without those that a branch never takes which the thread's number alone decides."""

    def __init__(self, subject):
        self.kernel = subject.kernel
        self.labels = set(subject.kernel.labels.values())
        self.makers = defaultdict(list)  # register -> numbers of the instructions that write it
        for at, instruction in enumerate(self.kernel.instructions):
            for name in names_in(instruction.operands[0]) if instruction.operands else ():
                self.makers[name].append(at)
        self.decided = {}  # branch -> whether it is always taken
        block = block_of(subject)
        if block is not None:
            self._decide(subject, block)
        self.after, self.before = defaultdict(list), defaultdict(list)
        for at, following in self._edges():
            self.after[at].append(following)
            self.before[following].append(at)
        self.live = self._reached()

    def only_maker(self, name):
        """The one instruction that writes a register, always; None where there are others or a guard."""
        makers = self.makers.get(name, ())
        only = self.kernel.instructions[makers[0]] if len(makers) == 1 else None
        return only if only is not None and only.guard is None else None

    def maker_before(self, name, at):
        """The number of the instruction whose value of a register instruction `at` reads; None where it may vary."""
        for number in range(at - 1, -1, -1):
            if number + 1 in self.labels:
                break
            if number in self.makers.get(name, ()):
                return number if self.kernel.instructions[number].guard is None else None
        return self.makers[name][0] if self.only_maker(name) is not None else None

    def thread_slice(self, operand, at):
        """Numbers of the instructions that make what instruction `at` reads of nothing but the thread's number.

        None where more goes in.
        """
        if isinstance(operand, Immediate) or (isinstance(operand, Special) and operand.name.startswith("%tid")):
            return set()
        number = self.maker_before(operand.name, at) if isinstance(operand, Register) else None
        if number is None or not re.match(PURE, self.kernel.instructions[number].opcode):
            return None
        found = {number}
        for each in self.kernel.instructions[number].operands[1:]:
            further = self.thread_slice(each, number)
            if further is None:
                return None
            found |= further
        return found

    def _decide(self, subject, block):
        for at, instruction in enumerate(self.kernel.instructions):
            if instruction.opcode.startswith("bra") and instruction.guard is not None:
                numbers = self.thread_slice(instruction.guard, at)
                if numbers is None:
                    continue
                making = [self.kernel.instructions[number] for number in sorted(numbers)]
                values = for_every_thread(subject, making, instruction.guard.name, block)
                if len(set(values)) == 1:
                    self.decided[at] = bool(values[0]) != instruction.guard_negated

    def _edges(self):
        instructions = self.kernel.instructions
        for at, instruction in enumerate(instructions):
            always = instruction.guard is None
            if instruction.opcode.startswith("bra"):
                if self.decided.get(at) is not False:
                    yield at, self.kernel.labels[instruction.operands[0].name]
                always = always or self.decided.get(at) is True
                if not always:
                    yield at, at + 1
            elif not (always and re.match(r"(ret|exit)\b", instruction.opcode)):
                yield at, at + 1

    def _reached(self):
        seen, waiting = set(), [0]
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                waiting += self.after[at]
        return seen


# What gives the same for the same operands.
PURE = r"(mov|add|sub|mul|mad|shl|shr|and|or|xor|not|neg|cvt|bfe|min|max|setp|selp)\b"

STORE_PREDICATE = """
.version 8.0
.target sm_75
.entry shown(.param .u64 shown_out) {
  .reg .b64 %shown_rd<3>;
  .reg .b32 %shown_r<2>;
  .reg .pred %shown_p;
  ld.param.u64 %shown_rd0, [shown_out];
  mov.u32 %shown_r0, %tid.x;
  mul.wide.u32 %shown_rd1, %shown_r0, 4;
  add.s64 %shown_rd2, %shown_rd0, %shown_rd1;
  selp.b32 %shown_r1, 1, 0, %shown_p;
  st.global.u32 [%shown_rd2], %shown_r1;
  ret;
}
"""


def block_of(subject):
    """The shape of every block of the kernel's launches, if it is one and has a single dimension."""
    shapes = {block for _, reach in subject.cases for block in reach.blocks}
    return next(iter(shapes)) if len(shapes) == 1 and all(block[1:] == (1, 1) for block in shapes) else None


def for_every_thread(subject, making, predicate, block):
    """What these instructions make of a predicate, thread by thread of a block along x."""
    module = Module.from_ptx(STORE_PREDICATE, DEVICE)
    shown = module.parsed.kernels["shown"]
    end = [
        replace(each, operands=tuple(Register(predicate) if o == Register("%shown_p") else o for o in each.operands))
        for each in shown.instructions
    ]
    shown.registers |= subject.kernel.registers
    shown.instructions = [*making, *end]
    values = np.zeros(block[0], np.int32)
    assert module.launch("shown", grid=1, block=block, args=[values]).ok
    return values.tolist()


@cache
def flow(subject):
    return Flow(subject)

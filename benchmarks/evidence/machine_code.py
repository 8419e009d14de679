"""The main loop of a kernel's machine code (SASS, as cuobjdump prints it), and what kinds of instructions it has.

The control flow is rebuilt from branches, and loops are those of the dominator tree: machine code puts rare paths
behind a loop and jumps back into it, so that a backward branch alone says little. The main loop is the innermost one
that does the kernel's work: products where it has any, loads from global memory elsewhere; of several, the one with the
most. The counts are of instructions as they stand there, rare paths included.
"""

import re
from collections import Counter
from dataclasses import dataclass

# "        /*0740*/               @P0 BRA 0x91a0 ;                    /* 0x... */", and the rest of its encoding below.
LINE = re.compile(
    r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P[0-9T]+)\s+)?([A-Z][A-Z0-9_]*)([^;]*);"
    r"(?:\s*/\* 0x[0-9a-f]{16} \*/\s*/\* 0x([0-9a-f]{16}) \*/)?",
    re.MULTILINE,
)
STALL = 41  # where the cycles that the next instruction of the warp waits are, four bits in the second half

KINDS = {
    "global load": "LDG LDGSTS LD UBLKCP UTMALDG",
    "global store": "STG ST RED ATOM ATOMG UTMASTG",
    "shared": "LDS STS LDSM STSM ATOMS MOVM",
    "local": "LDL STL",
    "mma": "IMMA HMMA IGMMA UTCIMMA",
    "dp4a": "IDP IDP4A",
    "float": "FADD FMUL FFMA FMNMX FMNMX3 FSEL FSET FSETP FCHK MUFU FADD2 FFMA2 FMUL2 HADD2 HMUL2 HFMA2 HMNMX2 HSET2"
    " HSETP2 DADD DMUL DFMA DSETP UFFMA UFADD UFMUL UFSETP UFSEL UFMNMX",
    "conversion": "I2F I2FP F2I F2F F2FP F2IP I2I I2IP FRND UI2F UI2FP UF2I UF2FP UFRND",
    "integer": "IADD IADD3 IMAD IMUL ISETP IMNMX IABS ISCADD LEA LOP LOP3 SHF SHL SHR BFE BFI FLO POPC BREV PRMT SEL"
    " VIADD VIMNMX VIMNMX3 VIADDMNMX VABSDIFF SGXT BMSK PLOP3 UIADD3 UIMAD UISETP ULOP3 USHF ULEA USEL UPRMT UIMNMX"
    " UPLOP3 UBREV UFLO UPOPC USGXT UBMSK UIABS UVIADD UVIMNMX UVIADDMNMX",
    "move": "MOV MOV32I CS2R CS2UR UMOV R2UR S2R S2UR P2R R2P UP2UR LDC ULDC LDCU SHFL REDUX CREDUX VOTE VOTEU MATCH",
    "control": "BRA BSSY BSYNC BREAK BMOV CALL RET EXIT BAR WARPSYNC COLLECTIVE ENDCOLLECTIVE NOP YIELD DEPBAR"
    " LDGDEPBAR SYNCS ELECT NANOSLEEP"
    " MEMBAR ERRBAR CCTL UCGABAR_ARV UCGABAR_WAIT ACQBULK KILL BPT WARPGROUP",
}
KIND = {name: kind for kind, names in KINDS.items() for name in names.split()}


@dataclass(frozen=True)
class MainLoop:
    """`kinds` of the loop's instructions, and the cycles that a warp needs to issue them; of the whole kernel's where
    nothing loops."""

    loops: bool
    kinds: Counter
    cycles: int


@dataclass
class Instruction:
    address: int
    guarded: bool
    name: str
    rest: str
    cycles: int  # until the warp's next one

    @property
    def kind(self):
        if self.name not in KIND:
            raise ValueError(f"a machine instruction of no known kind: {self.name}{self.rest}")
        if self.name == "HFMA2" and "-RZ, RZ," in self.rest:  # 0 * 0 + a constant
            return "move"
        return KIND[self.name]

    @property
    def target(self):
        """Where a branch goes."""
        found = re.search(r"0x([0-9a-f]+)\s*$", self.rest)
        if found is None:
            raise ValueError(f"a branch to nowhere: {self.name}{self.rest}")
        return int(found.group(1), 16)


def parse(code):
    return [
        Instruction(int(address, 16), bool(guard) and guard != "@PT", name, rest, int(high or "0", 16) >> STALL & 15)
        for address, guard, name, rest, high in LINE.findall(code)
    ]


def is_conditional(branch):
    """By its guard, or by a predicate among its operands: 'BRA.U !UP0, 0x40'."""
    return branch.guarded or re.search(r"\bU?P[0-9]", branch.rest) is not None


def blocks_of(instructions):
    """Runs of instructions that are entered at their beginning alone: [first, end) as indexes, and their successors."""
    index = {each.address: i for i, each in enumerate(instructions)}
    leaders = {0}
    for i, each in enumerate(instructions):
        if each.name in ("BRX", "JMX", "JMP"):
            raise ValueError(f"a branch that is not followed: {each.name}{each.rest}")
        if each.name == "BRA":
            leaders.add(index[each.target])
        if each.name in ("BRA", "EXIT", "RET"):
            leaders.add(i + 1)
    starts = sorted(leader for leader in leaders if leader < len(instructions))
    number = {start: block for block, start in enumerate(starts)}
    bounds = list(zip(starts, [*starts[1:], len(instructions)], strict=True))
    successors = []
    for _, end in bounds:
        last = instructions[end - 1]
        to = []
        if last.name == "BRA":
            to.append(number[index[last.target]])
        ends = last.name in ("BRA", "EXIT", "RET") and not is_conditional(last)
        if not ends and end < len(instructions):
            to.append(number[end])
        successors.append(to)
    return bounds, successors


def reversed_postorder(successors):
    order, seen, stack = [], {0}, [(0, iter(successors[0]))]
    while stack:
        block, rest = stack[-1]
        following = next((to for to in rest if to not in seen), None)
        if following is None:
            order.append(block)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(successors[following])))
    return order[::-1]


def immediate_dominators(successors, order):
    """Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm"."""
    place = {block: i for i, block in enumerate(order)}
    before = {block: [] for block in order}
    for block in order:
        for to in successors[block]:
            before[to].append(block)
    dominator = {0: 0}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [each for each in before[block] if each in dominator]
            meet = known[0]
            for other in known[1:]:
                while meet != other:
                    if place[meet] > place[other]:
                        meet = dominator[meet]
                    else:
                        other = dominator[other]
            if dominator.get(block) != meet:
                dominator[block], changed = meet, True
    return dominator, before


def loops_of(successors):
    """The natural loops as sets of blocks, one for each block that a branch goes back to."""
    order = reversed_postorder(successors)
    dominator, before = immediate_dominators(successors, order)

    def dominates(one, other):
        while other not in (one, 0):
            other = dominator[other]
        return other == one

    loops = {}
    for block in order:
        for header in successors[block]:
            if not dominates(header, block):
                continue
            body = loops.setdefault(header, {header})
            waiting = [block]
            while waiting:
                each = waiting.pop()
                if each not in body:
                    body.add(each)
                    waiting += before[each]
    return list(loops.values())


def main_loop(code):
    instructions = parse(code)
    if not instructions:
        raise ValueError("a kernel without machine code")
    bounds, successors = blocks_of(instructions)
    kinds = [Counter(each.kind for each in instructions[first:end]) for first, end in bounds]
    cycles = [sum(each.cycles for each in instructions[first:end]) for first, end in bounds]
    whole = sum(kinds, Counter())
    work = ("mma", "dp4a") if whole["mma"] + whole["dp4a"] else ("global load",)
    done = [sum(block[kind] for kind in work) for block in kinds]
    working = [loop for loop in loops_of(successors) if sum(done[block] for block in loop)]
    innermost = [loop for loop in working if not any(other < loop for other in working)]
    if not innermost:
        return MainLoop(False, whole, sum(cycles))
    chosen = max(innermost, key=lambda loop: (sum(done[block] for block in loop), -min(loop)))
    return MainLoop(True, sum((kinds[block] for block in chosen), Counter()), sum(cycles[block] for block in chosen))

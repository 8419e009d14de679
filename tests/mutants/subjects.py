"""The kernels that are mutated, each with the calls that launch it and what each call reaches of it."""

import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache

from quaver.explain import KERNELS
from tests import triton_kernels
from tests.emulator import Module, build, isa, ptx
from tests.emulator.module import Kernel, _three

from . import elementwise_cases
from .cases import DEVICE
from .linear_cases import linear_cases
from .matmul_cases import matmul_cases
from .operators import ORDERING, mutants_of
from .reduction_cases import reduction_cases
from .requantize_cases import requantize_cases, rescale_cases
from .row_cases import row_cases
from .triton_cases import cases_of

SEED = 1  # of the launches that show what a case reaches
STEPS = 10  # times the instructions of the longest launch, after which a mutant is given up


@dataclass
class Reach:
    """What a case runs of a kernel: warps by instruction, and the length of its longest launch."""

    warps: list
    longest: int = 0
    blocks: set = field(default_factory=set)  # the shapes of blocks

    def add(self, counters, block):
        self.blocks.add(tuple(block))
        self.warps = [a + b for a, b in zip(self.warps, (each.warps for each in counters.each), strict=True)]
        self.longest = max(self.longest, counters.instructions)


@dataclass(eq=False)
class Subject:
    """A kernel with its cases, the cheapest first."""

    name: str  # matmul_gemv_kernel<int8, uint8>
    family: str  # matmul_gemv_kernel
    module: Module
    kernel: ptx.Kernel
    cases: list = field(default_factory=list)  # (case, its Reach)
    dynamic_shared: bool = False
    operators: tuple | None = None  # None: all
    latest: object = None  # the case that saw the latest mutant; it is tried first, since neighbours are alike

    def mutants(self):
        for mutant in mutants_of(self.kernel, self.dynamic_shared):
            if self.operators is None or mutant.operator in self.operators:
                yield mutant

    def prepare(self, mutants):
        """Compiles what the mutants' instructions need that the kernel's own do not, all at once."""
        context = self.module.kernel(self.kernel.name).context
        lowered = [isa.lower(mutant.new, context) for mutant in mutants if mutant.new is not None]
        build.require({each.signature: each.source for each in lowered if each.source})

    @property
    def most_steps(self):
        return 10000 + STEPS * max(reach.longest for _, reach in self.cases)

    def cases_for(self, mutant):
        """The cases to try, the most promising first."""
        return sorted(self._cases_that_reach(mutant.at), key=lambda case: case is not self.latest)

    def _cases_that_reach(self, at):
        """Those that run instruction `at`, or may.

        A guard that is always false leaves no trace, but what comes behind it does.
        """
        if at < 0:
            return [case for case, _ in self.cases]
        places = [at]
        while self.kernel.instructions[places[-1]].guard is not None:
            places.append(places[-1] + 1)
        return [case for case, reach in self.cases if any(reach.warps[place] for place in places)]


class Trial(Module):
    """A module with a mutant in the kernel's place."""

    def __init__(self, subject, mutant):
        parsed = subject.module.parsed
        kernel = mutant.apply(subject.kernel)
        super().__init__(
            ptx.Module(parsed.version, parsed.target, parsed.files, parsed.variables, {kernel.name: kernel}), DEVICE
        )
        original = subject.module.kernel(kernel.name)
        self._kernels[kernel.name] = Kernel(kernel, parsed.variables, self.target, like=original)
        self.less_shared, self.most_steps = mutant.less_shared, subject.most_steps

    def launch_packed(self, name, *, shared=0, **how):
        shared = max(shared - self.less_shared, 0)
        return super().launch_packed(name, shared=shared, most_steps=self.most_steps, **how)


def run_case(subject, case, trial, seed):
    """Raises what shows that the trial differs from the kernel."""
    if not hasattr(case, "op"):
        case.run(trial, seed)
        return

    def launch(module, name, **how):
        return (trial if name == subject.kernel.name else module).launch_packed(name, **how)

    case.run(launch, seed)


@cache
def triton_subjects():
    subjects = []
    for name in triton_kernels.NAMES:
        module = triton_kernels.module(name)
        kernel = next(iter(module.parsed.kernels.values()))
        subject = Subject(f"triton {name}", f"triton {name}", module, kernel, dynamic_shared=name != "quantize")
        for case in cases_of(name):
            reach = Reach([0] * len(kernel.instructions))
            reach.add(case.run(module, SEED).counters, _three(kernel.limits["reqntid"]))
            subject.cases.append((case, reach))
        subjects.append(_cheapest_first(subject))
    return subjects


# What makes cases, and which kernels' names they are for.
MATMULS = (matmul_cases, "matmul_")
LINEARS = (linear_cases, "linear_")
ELEMENTWISE = (lambda *dtypes: elementwise_cases.every_case(*dtypes[:1]), "quantize_|dequantize_|fake_|dynamic_")
REDUCTIONS = (reduction_cases, "reduce_")
REQUANTIZE = (requantize_cases, "requantize_")
RESCALE = (lambda *dtypes: rescale_cases(*dtypes[:1]), "rescale_")
ROWS = (row_cases, "rms_norm_|silu_mul_")


@cache
def op_subjects(*dtypes, makers=(MATMULS, LINEARS, ELEMENTWISE, REDUCTIONS, REQUANTIZE, RESCALE, ROWS)):
    """The kernels that quaver's ops launch, found by watching them; of some dtypes: those of floats, those of codes."""
    subjects = {}
    for case, family in [(case, family) for make, family in makers for case in make(*dtypes)]:
        reached = {}

        def watch(module, name, *, block, shared=0, reached=reached, family=family, **how):
            result = module.launch_packed(name, block=block, shared=shared, **how)
            shown = readable(name)
            if not re.match(family, shown):
                return result
            if name not in subjects:
                subjects[name] = Subject(shown, shown.split("<")[0], module, module.parsed.kernels[name])
            subjects[name].dynamic_shared |= shared > 0
            reach = reached.setdefault(name, Reach([0] * len(result.counters.each)))
            reach.add(result.counters, block)
            return result

        case.run(watch, SEED)
        for name, reach in reached.items():
            subjects[name].cases.append((case, reach))
    ordered = sorted(map(_cheapest_first, subjects.values()), key=lambda subject: subject.name)
    _represent(ordered)
    return ordered


def _cheapest_first(subject):
    subject.cases.sort(key=lambda pair: sum(pair[1].warps))
    return subject


def _represent(subjects):
    """Instances of a template with the same mutants in the same places: one of them stands for all.

    The others get only the mutants of what orders threads.
    """
    seen = defaultdict(set)
    for subject in subjects:
        shape = tuple((mutant.operator, mutant.at, mutant.change) for mutant in mutants_of(subject.kernel))
        if shape in seen[subject.family]:
            subject.operators = ORDERING
        seen[subject.family].add(shape)


@cache
def readable(mangled):
    """matmul_sm80_kernel<small, int8, uint8> of _ZN6quaver..."""
    text = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    match = re.search(r"(\w+)(?:<(.*)>)?\((?!quaver::\w+\)\d|anonymous)", text)
    name, arguments = match.groups()
    overload = re.search(r"quaver::(Vectors|Each|Columns|Elements)Plan\b", text)
    if overload:
        name += f" of {overload.group(1).lower()}"
    tile = r"quaver::MmaTile<\(quaver::MatmulKernel\)(\d), \d+, \d+ ?>, quaver::\(anonymous namespace\)::\w+"
    arguments = re.sub(tile, lambda found: KERNELS[int(found.group(1))], arguments or "")
    words = {"(quaver::CodeType)0": "int8", "(quaver::CodeType)1": "uint8"}
    words |= {"unsigned char": "uint8", "signed char": "int8", "__half": "float16", "__nv_bfloat16": "bfloat16"}
    words |= {"(quaver::QuantizeMode)0": "onnx", "(quaver::QuantizeMode)1": "affine"}
    words |= {"(quaver::QuantizeMode)2": "reciprocal"}
    for long, short in words.items():
        arguments = arguments.replace(long, short)
    return f"{name}<{arguments}>" if arguments else name

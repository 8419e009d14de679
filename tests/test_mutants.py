"""The emulator's tests are tested: a kernel with a defect made on purpose does not pass them.

tests/mutants/ makes the defects, one at a time, of the kernels that quaver ships and of those that Triton compiled. Of
a template it takes the instances that differ in more than arithmetic, in which there is nothing to mutate.
At least 95 in 100 of those that change what a kernel does are seen; each of the others is explained there.
"""

import shutil

import pytest
import torch

from tests.emulator import Module, ptx
from tests.mutants import report, runner, subjects
from tests.mutants.explanations import ELEMENTWISE, HELD_ROWS, LINEARS, MATMULS, REDUCTIONS, REQUANTIZE, RESCALE, TRITON
from tests.mutants.operators import NAMES, mutants_of

SEEN = 0.95
SAMPLE = 40  # one mutant in so many of requantize, for every run; all of all kernels are deep tests

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="quaver's kernels are read as nvcc makes them")


def judged(chosen, every=1):
    return report.judge(runner.run(chosen, every=every), chosen)


def check(verdicts):
    print("\n" + report.table(verdicts))
    survivors = [each for each in verdicts if each.outcome.survived]
    print("\n".join(report.describe(each) for each in survivors))
    print(report.summary(verdicts))
    assert report.rate(verdicts) >= SEEN
    unexplained = [report.describe(each) for each in survivors if each.verdict == "open"]
    assert not unexplained, "\n".join(unexplained)


@needs_nvcc
def test_a_sample_of_mutants_of_requantize():
    check(judged(subjects.op_subjects(makers=(subjects.REQUANTIZE,)), SAMPLE))


@pytest.mark.deep
def test_every_mutant_of_tritons_kernels():
    verdicts = judged(subjects.triton_subjects())
    check(verdicts)
    assert_used(verdicts, TRITON)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_our_matmuls():
    verdicts = judged(subjects.op_subjects(makers=(subjects.MATMULS,)))
    check(verdicts)
    assert_used(verdicts, MATMULS)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_int8_linear():
    verdicts = judged(subjects.op_subjects(makers=(subjects.LINEARS,)))
    check(verdicts)
    assert_used(verdicts, LINEARS)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_our_elementwise_kernels():
    verdicts = judged(subjects.op_subjects(makers=(subjects.ELEMENTWISE,)))
    check(verdicts)
    assert_used(verdicts, ELEMENTWISE)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_our_reductions():
    verdicts = judged(subjects.op_subjects(makers=(subjects.REDUCTIONS,)))
    check(verdicts)
    assert_used(verdicts, REDUCTIONS)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_requantize():
    verdicts = judged(subjects.op_subjects(makers=(subjects.REQUANTIZE,)))
    check(verdicts)
    assert_used(verdicts, REQUANTIZE)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_rescale():
    verdicts = judged(subjects.op_subjects(makers=(subjects.RESCALE,)))
    check(verdicts)
    assert_used(verdicts, RESCALE)


@needs_nvcc
@pytest.mark.deep
def test_every_mutant_of_our_kernels_that_hold_rows():
    verdicts = judged(subjects.op_subjects(makers=(subjects.ROWS,)))
    check(verdicts)
    assert_used(verdicts, HELD_ROWS)


def assert_used(verdicts, explanations):
    """Each explanation explains something: none is left of a kernel that is gone."""
    used = {each.explanation for each in verdicts}
    assert not [each for each in explanations if each not in used]


# What the machinery itself must do.

KERNEL = """
.version 8.0
.target sm_75
.address_size 64
.visible .entry k(.param .u64 x)
{
.reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<9>;
.shared .align 4 .b8 smem[256];
ld.param.u64 %rd1, [x];
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, smem;
add.s32 %r4, %r3, %r2;
st.shared.u32 [%r4], %r1;
bar.sync 0;
xor.b32 %r5, %r4, 4;
ld.shared.u32 %r6, [%r5];
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
setp.ge.u32 %p1, %r1, 40;
@%p1 bra END;
st.global.u32 [%rd3], %r6;
END:
ret;
}
"""


def test_mutants_of_a_small_kernel():
    kernel = ptx.parse(KERNEL).kernels["k"]
    made = [(mutant.operator, mutant.ptx, mutant.change) for mutant in mutants_of(kernel)]
    assert made == [
        ("widen scale", "shl.b32 %r2, %r1, 2;", "shifted by 3"),
        ("widen index", "st.shared.u32 [%r4], %r1;", "4 bytes further"),
        ("delete barrier", "bar.sync 0;", "deleted"),
        ("drop swizzle", "xor.b32 %r5, %r4, 4;", "without the xor"),
        ("widen index", "ld.shared.u32 %r6, [%r5];", "4 bytes further"),
        ("widen scale", "mul.wide.u32 %rd2, %r1, 4;", "times 8"),
        ("widen compare", "setp.ge.u32 %p1, %r1, 40;", "ge -> gt"),
        ("drop guard", "@%p1 bra END;", "for every thread"),
        ("drop guard", "@%p1 bra END;", "for no thread"),
        ("widen index", "st.global.u32 [%rd3], %r6;", "4 bytes further"),
        ("shrink shared", ".shared smem", "128 of 256 bytes"),
        ("shrink shared", ".shared smem", "252 of 256 bytes"),
    ]
    assert {operator for operator, _, _ in made} <= set(NAMES)


class SmallCase:
    """The small kernel's launch, which exchanges numbers between neighbours."""

    def run(self, module, seed):
        x = torch.zeros(40, dtype=torch.int32)
        result = module.launch("k", grid=1, block=64, args=[x], seed=seed)
        assert not result.reports, "\n".join(map(str, result.reports))
        assert x.tolist() == [each ^ 1 for each in range(40)], "wrong bits"
        return result


def small_subject(text):
    module = Module.from_ptx(text, "sm_80")
    subject = subjects.Subject("k", "k", module, module.parsed.kernels["k"])
    reach = subjects.Reach([0] * len(subject.kernel.instructions))
    reach.add(SmallCase().run(module, 1).counters, (64, 1, 1))
    subject.cases.append((SmallCase(), reach))
    return subject


def test_every_mutant_of_a_small_kernel_is_seen():
    verdicts = judged([small_subject(KERNEL)])
    assert {each.verdict for each in verdicts} == {"seen"}
    kinds = {each.reason for each in verdicts}
    assert {"shared race", "out of bounds", "wrong bits"} <= kinds


def test_what_changes_nothing_is_proven_by_rule():
    """A second barrier after the first, a guard that is the same for every thread, and what is behind it."""
    more = "bar.sync 0;\nbar.sync 0;\nsetp.gt.u32 %p2, %r1, 63;\n@!%p2 bra ON;\nst.shared.u32 [%r4+256], %r1;\nON:"
    verdicts = judged([small_subject(KERNEL.replace("bar.sync 0;", more))])
    survivors = {(each.outcome.ptx, each.outcome.change): each.reason for each in verdicts if each.outcome.survived}
    assert {each.verdict for each in verdicts if each.outcome.survived} == {"equivalent"}
    assert "between this barrier and" in survivors["bar.sync 0;", "deleted"]
    assert "decides this branch" in survivors["@!%p2 bra ON;", "for every thread"]
    assert "no thread" in survivors["st.shared.u32 [%r4+256], %r1;", "4 bytes further"]
    assert ("@!%p2 bra ON;", "for no thread") not in survivors
    assert ("setp.gt.u32 %p2, %r1, 63;", "gt -> ge") not in survivors

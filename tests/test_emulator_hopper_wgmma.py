"""wgmma of 8-bit codes in the emulator against NumPy, with layouts stated here anew, and each way to get it wrong."""

import itertools

import numpy as np
import pytest

from tests.emulator import PtxError
from tests.test_emulator_hopper_copies import in_shared
from tests.test_emulator_hopper_mbarrier import kinds, run

COLUMNS = (8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256)
SIGNS = tuple(itertools.product("su", "su"))
A, B = 0, 16384  # where the operands are in shared memory
MEMORY = 16384 + 256 * 128


def descriptor(start, swizzle, stride, leading=0, base=0):
    mode = {None: 0, "128B": 1, "64B": 2, "32B": 3}[swizzle]
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | base << 49 | mode << 62


def without_swizzle(codes, leading, stride):
    """Core matrices of 8 rows of 16 bytes: `leading` bytes to the next along a row, `stride` to the next 8 rows."""
    rows, inner = codes.shape
    data = np.zeros((inner // 16 - 1) * leading + (rows // 8 - 1) * stride + 128, np.uint8)
    for row, chunk in itertools.product(range(rows), range(inner // 16)):
        at = row // 8 * stride + chunk * leading + row % 8 * 16
        data[at : at + 16] = codes[row, 16 * chunk : 16 * chunk + 16]
    return data


def sums(n, lane_registers="%d"):
    return "{" + ", ".join(f"{lane_registers}{i}" for i in range(n // 2)) + "}"


def move_sums(n, opcode):
    """A thread's register i: row 16 * warp + lane / 4 + i / 2 % 2 * 8, column i / 4 * 8 + lane % 4 * 2 + i % 2."""
    text = ""
    for i in range(n // 2):
        at = (i // 2 % 2) * 8 * n * 4 + (i // 4) * 32 + i % 2 * 4
        text += f"ld.global.u32 %d{i}, [%rd8+{at}];\n" if opcode == "ld" else f"st.global.u32 [%rd8+{at}], %d{i};\n"
    return text


def begin(n, threads=128):
    """%rd8: the thread's first sum in out. x goes to shared memory."""
    return f"""
    shr.u32 %r5, %r1, 5; and.b32 %r6, %r1, 31; shr.u32 %r7, %r6, 2; and.b32 %r8, %r6, 3;
    shl.b32 %r9, %r5, 4; add.s32 %r9, %r9, %r7; mul.lo.u32 %r9, %r9, {4 * n}; shl.b32 %r10, %r8, 3;
    add.s32 %r9, %r9, %r10; cvt.u64.u32 %rd7, %r9; add.s64 %rd8, %rd2, %rd7;
    ld.param.u64 %rd10, [a]; ld.param.u64 %rd11, [b]; ld.param.u32 %r20, [adds]; setp.ne.u32 %p3, %r20, 0;
    shl.b32 %r11, %r1, 4; add.s32 %r12, %r2, %r11; mul.wide.u32 %rd9, %r1, 16; add.s64 %rd9, %rd1, %rd9;
    FILL: setp.ge.u32 %p2, %r11, {MEMORY}; @%p2 bra FILLED;
    ld.global.v4.u32 {{%r13, %r14, %r15, %r16}}, [%rd9]; st.shared.v4.u32 [%r12], {{%r13, %r14, %r15, %r16}};
    add.s32 %r11, %r11, {16 * threads}; add.s32 %r12, %r12, {16 * threads};
    add.s64 %rd9, %rd9, {16 * threads}; bra FILL;
    FILLED: fence.proxy.async.shared::cta; bar.sync 0;
    """


def multiply(n, signs="ss", saturates=False, a="%rd10", b="%rd11"):
    sat = ".satfinite" if saturates else ""
    opcode = f"wgmma.mma_async.sync.aligned.m64n{n}k32{sat}.s32.{signs[0]}8.{signs[1]}8"
    return f"{opcode} {sums(n)}, {a}, {b}, %p3;\n"


FENCE, COMMIT, WAIT = (
    f"wgmma.{each};\n" for each in ("fence.sync.aligned", "commit_group.sync.aligned", "wait_group.sync.aligned 0")
)
STEP = "add.s64 %rd10, %rd10, {}; add.s64 %rd11, %rd11, {};\n"
PARAMETERS = ", .param .u64 a, .param .u64 b, .param .u32 adds"


def launch(body, memory, out, a=0, b=0, adds=1, block=128, seed=0):
    x = np.zeros(MEMORY, np.uint8)
    for at, data in memory.items():
        x[at : at + data.size] = data
    registers = ".reg .b32 %d<128>; .reg .b32 %a<4>;\n"
    options = {"block": block, "seed": seed, "shared": MEMORY, "parameters": PARAMETERS, "registers": registers}
    return run(body, x, out, a, b, adds, **options)


def product(a, b, start, signs, saturates=False):
    a, b = (x.view(f"{'i' if sign == 's' else 'u'}1").astype(np.int64) for x, sign in zip((a, b), signs, strict=True))
    total = start.astype(np.int64)
    for first in range(0, a.shape[1], 32):
        total = total + a[:, first : first + 32] @ b[:, first : first + 32].T
        total = np.clip(total, -(2**31), 2**31 - 1) if saturates else total.astype(np.int32).astype(np.int64)
    return total.astype(np.int32)


def codes(rng, rows, inner):
    return rng.integers(0, 256, (rows, inner), dtype=np.uint8)


def starts(rng, n):
    return rng.integers(-(2**31), 2**31, (64, n)).astype(np.int32)


# Every n with the signs and saturation in turn, and all of them for one n.
VARIANTS = [(n, SIGNS[i % 4], i % 3 == 0, i % 5 == 0) for i, n in enumerate(COLUMNS)]
VARIANTS += [(8, *each) for each in itertools.product(SIGNS, (False, True), (False, True))]


@pytest.mark.parametrize(("n", "signs", "saturates", "registers"), VARIANTS)
def test_shapes_and_types(n, signs, saturates, registers):
    rng = np.random.default_rng(n)
    a, b, out = codes(rng, 64, 32), codes(rng, n, 32), starts(rng, n)
    expected = product(a, b, out, signs, saturates)
    memory = {B: in_shared(b, "32B")}
    body = begin(n) + move_sums(n, "ld")
    if registers:  # a thread's register i: row 16 * warp + lane / 4 + i % 2 * 8, codes from lane % 4 * 4 + i / 2 * 16
        memory[A] = a.reshape(-1)
        body += "mad.lo.u32 %r21, %r5, 16, %r7; shl.b32 %r21, %r21, 5;\n"
        body += "mad.lo.u32 %r21, %r8, 4, %r21; add.s32 %r21, %r21, %r2;\n"
        body += "".join(f"ld.shared.u32 %a{i}, [%r21+{i % 2 * 256 + i // 2 * 16}];\n" for i in range(4))
    else:
        memory[A] = in_shared(a, "32B")
    instruction = multiply(n, signs, saturates, "{%a0, %a1, %a2, %a3}" if registers else "%rd10")
    body += FENCE + instruction + COMMIT + WAIT + move_sums(n, "st")
    result = launch(body, memory, out, descriptor(A, "32B", 256), descriptor(B, "32B", 256))
    assert result.ok, [str(report) for report in result.reports]
    np.testing.assert_array_equal(out, expected)


LAYOUTS = {
    # swizzle -> (codes of a row, how they lie, step of a descriptor for 32 codes, stride, leading)
    "32B": (32, lambda x: in_shared(x, "32B"), 0, 256, 0),
    "64B": (64, lambda x: in_shared(x, "64B"), 2, 512, 0),
    "128B": (128, lambda x: in_shared(x, "128B"), 2, 1024, 0),
    "none, by columns": (64, lambda x: without_swizzle(x, x.shape[0] * 16, 128), None, 128, None),
    "none, by rows": (64, lambda x: without_swizzle(x, 128, 512), 16, 512, 128),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(3))
def test_layouts(layout, seed):
    """Rows of several steps of 32 codes, the descriptors moved on within the swizzle."""
    inner, place, step, stride, leading = LAYOUTS[layout]
    n, rng = 48, np.random.default_rng(seed)
    a, b, out = codes(rng, 64, inner), codes(rng, n, inner), starts(rng, n)
    expected = product(a, b, out, "ss")
    swizzle = None if layout.startswith("none") else layout
    by_columns = leading is None
    descriptors = [
        descriptor(at, swizzle, stride, rows * 16 if by_columns else leading) for at, rows in ((A, 64), (B, n))
    ]
    steps = (128, 2 * n) if by_columns else (step, step)
    body = begin(n) + move_sums(n, "ld") + FENCE
    body += (multiply(n) + STEP.format(*steps)) * (inner // 32)
    body += COMMIT + WAIT + move_sums(n, "st")
    memory = {A: place(a), B: place(b)}
    result = launch(body, memory, out, *descriptors, seed=seed)
    assert result.ok, [str(report) for report in result.reports]
    np.testing.assert_array_equal(out, expected)
    for wrong in {None, "32B", "64B", "128B"} - {swizzle}:
        other = np.zeros_like(out)
        at, _ = descriptors[0], descriptors[1]
        launch(body, memory, other, at & ~(3 << 62) | descriptor(0, wrong, 0), descriptors[1], seed=seed)
        assert not np.array_equal(other, product(a, b, np.zeros_like(out), "ss"))


def test_the_predicate_says_whether_sums_are_added_to():
    rng = np.random.default_rng(0)
    a, b, out = codes(rng, 64, 32), codes(rng, 16, 32), starts(rng, 16)
    expected = product(a, b, np.zeros_like(out), "ss")
    body = begin(16) + move_sums(16, "ld") + FENCE + multiply(16) + COMMIT + WAIT + move_sums(16, "st")
    memory = {A: in_shared(a, "32B"), B: in_shared(b, "32B")}
    assert launch(body, memory, out, descriptor(A, "32B", 256), descriptor(B, "32B", 256), adds=0).ok
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("saturates", [False, True])
def test_the_largest_sums(saturates):
    for most, start in itertools.product((127, 128), (-(2**31), 2**31 - 1, 2**31 - 600000)):
        a, b = np.full((64, 32), most, np.uint8), np.full((8, 32), 128, np.uint8)
        out = np.full((64, 8), start, np.int32)
        expected = product(a, b, out, "ss", saturates)
        body = begin(8) + move_sums(8, "ld") + FENCE + multiply(8, "ss", saturates) * 2 + COMMIT + WAIT
        expected = product(a, b, expected, "ss", saturates)
        memory = {A: in_shared(a, "32B"), B: in_shared(b, "32B")}
        assert launch(body + move_sums(8, "st"), memory, out, descriptor(A, "32B", 256), descriptor(B, "32B", 256)).ok
        np.testing.assert_array_equal(out, expected)


def test_two_warpgroups_and_two_groups_in_flight():
    """Each warpgroup has its own sums; the wait for all but one group gives those of the first."""
    rng = np.random.default_rng(0)
    a, b, out = codes(rng, 128, 32), codes(rng, 8, 32), np.zeros((128, 8), np.int32)
    second = "{%d4, %d5, %d6, %d7}"
    body = begin(8, 256) + "shr.u32 %r21, %r5, 2; mul.wide.u32 %rd12, %r21, 128; add.s64 %rd10, %rd10, %rd12;\n"
    body += FENCE + multiply(8) + COMMIT + multiply(8).replace(sums(8), second).replace("%p3", "0") + COMMIT
    body += "wgmma.wait_group.sync.aligned 1;\n" + move_sums(8, "st") + "MORE" + WAIT + "add.s32 %r22, %d4, %d5;\n"
    memory = {A: in_shared(a, "32B"), B: in_shared(b, "32B")}
    where = descriptor(A, "32B", 256), descriptor(B, "32B", 256)
    for seed in range(4):
        out[:] = 0
        result = launch(body.replace("MORE", ""), memory, out, *where, block=256, seed=seed)
        assert result.ok, [str(report) for report in result.reports]
        np.testing.assert_array_equal(out, product(a, b, np.zeros_like(out), "ss"))
        early = launch(body.replace("MORE", "add.s32 %r22, %d4, %d5;\n"), memory, out, *where, block=256, seed=seed)
        assert kinds(early) == {"wgmma not waited for"}


NOT_WAITED = "wgmma not waited for"
READ = "add.s32 %r22, %d0, 1;\n"
IN_REGISTERS = multiply(8, a="{%a0, %a1, %a2, %a3}")
AFTER = f"st.shared.u32 [%r4+{B}], %r1;\n"  # to B
LOAD = "ld.global.u32 %d0, [%rd8];\n"
RIGHT = {
    "plain": FENCE + multiply(8) + COMMIT + WAIT + READ,
    "twice": FENCE + multiply(8) + multiply(8) + COMMIT + WAIT + READ,
    "again": (FENCE + multiply(8) + COMMIT + WAIT) * 2 + READ,
    "sums set before": LOAD + FENCE + multiply(8) + COMMIT + WAIT + READ,
    "others read what it reads": FENCE + multiply(8) + f"ld.shared.u32 %r22, [%r4+{B}];" + COMMIT + WAIT,
    "written after": FENCE + multiply(8) + COMMIT + WAIT + "bar.sync 0;" + AFTER,
    "codes in registers": "mov.u32 %a0, 7;" + FENCE + IN_REGISTERS + "add.s32 %r22, %a0, 1;" + COMMIT + WAIT
    + "mov.u32 %a0, 8;",
}  # fmt: skip
WRONG = {
    "no wait": (FENCE + multiply(8) + COMMIT + READ, {NOT_WAITED}),
    "no group": (FENCE + multiply(8) + WAIT + READ, {NOT_WAITED}),
    "a wait for fewer": (FENCE + multiply(8) + COMMIT + WAIT.replace("0", "1") + READ, {NOT_WAITED}),
    "sums written meanwhile": (FENCE + multiply(8) + LOAD + COMMIT + WAIT, {NOT_WAITED}),
    "no fence": (LOAD + multiply(8) + COMMIT + WAIT, {"missing wgmma.fence"}),
    "no fence for the codes": (FENCE + "mov.u32 %a0, 7;" + IN_REGISTERS + COMMIT + WAIT, {"missing wgmma.fence"}),
    "no second fence": (
        FENCE + multiply(8) + COMMIT + WAIT + LOAD + multiply(8) + COMMIT + WAIT, {"missing wgmma.fence"}),
    "codes written meanwhile": (FENCE + IN_REGISTERS + "mov.u32 %a0, 7;" + COMMIT + WAIT, {NOT_WAITED}),
    "sums as codes": (
        FENCE + multiply(8) + IN_REGISTERS.replace(sums(8), sums(8, "%a")).replace("{%a0, %a1, %a2, %a3}, %rd11",
        "{%d0, %d1, %d2, %d3}, %rd11") + COMMIT + WAIT, {NOT_WAITED}),
    "memory written meanwhile": (FENCE + multiply(8) + COMMIT + AFTER + WAIT, {"shared race"}),
    "memory written meanwhile after a barrier": (
        FENCE + multiply(8) + COMMIT + "bar.sync 0;" + AFTER + WAIT, {"shared race"}),
    "memory written before": (AFTER + FENCE + multiply(8) + COMMIT + WAIT, {"shared race"}),
    "no proxy fence": (AFTER + "bar.sync 0;" + FENCE + multiply(8) + COMMIT + WAIT, {"missing proxy fence"}),
    "one warp does not": ("setp.lt.u32 %p4, %r1, 96; @!%p4 bra AWAY;" + FENCE + multiply(8) + COMMIT + WAIT + "AWAY:",
        {"deadlock"}),
    "a lane does not": ("setp.ne.u32 %p4, %r1, 5; @%p4 " + multiply(8), {"divergent warp instruction"}),
    "warps want different things": (
        "mul.wide.u32 %rd12, %r5, 16; add.s64 %rd10, %rd10, %rd12;" + FENCE + multiply(8) + COMMIT + WAIT,
        {"divergent warpgroup"}),
    "lanes want different things": (
        "mul.wide.u32 %rd12, %r6, 16; add.s64 %rd10, %rd10, %rd12;" + FENCE + multiply(8) + COMMIT + WAIT,
        {"divergent warpgroup"}),
    "a base offset": ("mov.u64 %rd12, 0x2000000000000; add.s64 %rd10, %rd10, %rd12;" + FENCE + multiply(8),
        {"bad matrix descriptor"}),
    "beyond shared memory": ("mov.u64 %rd10, 0x2000002000;" + FENCE + multiply(8), {"out of bounds"}),
}  # fmt: skip


def seen(body, block=128, seed=0):
    rng = np.random.default_rng(0)
    memory = {A: in_shared(codes(rng, 64, 32), "32B"), B: in_shared(codes(rng, 8, 32), "32B")}
    out = np.zeros((64, 8), np.int32)
    where = descriptor(A, "32B", 256), descriptor(B, "32B", 256)
    return kinds(launch(begin(8) + body, memory, out, *where, block=block, seed=seed))


@pytest.mark.parametrize("how", RIGHT)
def test_right_uses(how):
    for seed in range(3):
        assert seen(RIGHT[how], seed=seed) == set()


@pytest.mark.parametrize("how", WRONG)
def test_wrong_uses(how):
    body, expected = WRONG[how]
    for seed in range(3):
        assert seen(body, seed=seed) & expected


def test_a_warpgroup_has_four_warps():
    assert seen(RIGHT["plain"], block=96) == {"divergent warpgroup"}


def test_before_the_wait_there_are_the_old_sums():
    rng = np.random.default_rng(0)
    a, b, out = codes(rng, 64, 32), codes(rng, 8, 32), starts(rng, 8)
    before = out.copy()
    body = begin(8) + move_sums(8, "ld") + FENCE + multiply(8) + COMMIT + move_sums(8, "st") + WAIT
    memory = {A: in_shared(a, "32B"), B: in_shared(b, "32B")}
    result = launch(body, memory, out, descriptor(A, "32B", 256), descriptor(B, "32B", 256))
    assert kinds(result) == {NOT_WAITED}
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("unknown shape", multiply(40)),
        ("registers expected", multiply(8).replace("%d0, ", "")),
        ("two of the sums", multiply(8).replace("%d0, ", "%d1, ")),
        ("32 bits", multiply(8).replace("%d0, ", "%rd12, ")),
        ("a descriptor is", multiply(8, a="64")),
        ("a descriptor is", multiply(8, b="64")),
        ("registers expected", IN_REGISTERS.replace("%a0, ", "")),
        ("unknown instruction", multiply(8).replace("k32", "k64")),
        ("unknown instruction", multiply(8).replace(".s8.s8", ".f16.f16")),
        ("unknown instruction", multiply(8).replace(".aligned", "")),
        ("operands expected", multiply(8).replace(", %p3", "")),
        ("operands expected", multiply(8).replace("%p3", "%p3, 1, 1")),
        ("literal number", "wgmma.wait_group.sync.aligned %r1;"),
    ],
)
def test_what_the_isa_does_not_have_is_quoted(words, line):
    with pytest.raises(PtxError, match=words) as error:
        seen(line)
    assert line.split()[0] in str(error.value)

"""mma, ldmatrix, stmatrix and cp.async in the emulator against models in NumPy, written from the PTX ISA's tables.

The kernels are PTX by hand. Of asynchronous copies, the right use passes, and each way to get it wrong is reported.
"""

import itertools

import numpy as np
import pytest

from tests.emulator import Module, PtxError

HEAD = ".version 8.0\n.target {}\n.address_size 64\n"
REGISTERS = ".reg .pred %p<9>; .reg .b32 %r<33>; .reg .b32 %a<4>; .reg .b32 %b<4>; .reg .b32 %c<4>; .reg .b32 %d<4>;\n"
REGISTERS += ".reg .b64 %rd<33>;"
# %r1: the thread's number; %rd1: x, %rd2: out, %r2: the address of shared memory
BEGIN = "ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, smem;\n"


def run(body, x, out, *, block=32, seed=0, shared=8192, target="sm_80"):
    memory = f".shared .align 16 .b8 smem[{shared}];"
    head = HEAD.format(target) + ".visible .entry k(.param .u64 x, .param .u64 out)"
    module = Module.from_ptx(f"{head}\n{{\n{REGISTERS}\n{memory}\n{BEGIN}{body}\nret;\n}}\n", "sm_80")
    return module.launch("k", grid=1, block=block, args=[x, out], seed=seed)


def kinds(result):
    return {report.kind for report in result.reports}


# mma: element i of lane's fragment -> (row, column). PTX ISA, "Matrix Fragments for mma.m8n8k16" and so on.


def place_in_a(shape, lane, i):
    group, thread = lane >> 2, lane % 4
    if shape == (8, 16):
        return group, thread * 4 + i
    if shape == (16, 16):
        return (group if i < 4 else group + 8), thread * 4 + (i & 3)
    return (group if i < 4 or 8 <= i < 12 else group + 8), thread * 4 + (i & 3) + (0 if i < 8 else 16)


def place_in_b(shape, lane, i):
    return lane % 4 * 4 + (i & 3) + (0 if i < 4 else 16), lane >> 2


def place_in_c(shape, lane, i):
    return (lane >> 2) + (0 if i < 2 else 8), lane % 4 * 2 + (i & 1)


SHAPES = ((8, 16), (16, 16), (16, 32))  # (m, k); n is 8
SIGNS = tuple(itertools.product("su", "su"))
VARIANTS = tuple(itertools.product(SHAPES, SIGNS, (False, True)))
FRAGMENTS = "".join(
    f"ld.global.u32 %{name}{i}, [%rd3+{4 * (first + i)}];\n"
    for name, count, first in (("a", 4, 0), ("b", 2, 4), ("c", 4, 6))
    for i in range(count)
)


def registers(name, count):
    return "{" + ", ".join(f"%{name}{i}" for i in range(count)) + "}"


def mma(shape, signs, saturates):
    m, k = shape
    opcode = f"mma.sync.aligned.m{m}n8k{k}.row.col{'.satfinite' if saturates else ''}.s32.{signs[0]}8.{signs[1]}8.s32"
    fragments = [registers("d", m // 4), registers("a", m * k // 128), registers("b", k // 16), registers("c", m // 4)]
    return f"{opcode} {', '.join(fragments)};\n"


def every_mma():
    """x: ten words for each lane, fragments of A, B and C; out: four words for each variant and lane."""
    body = (
        "mul.wide.u32 %rd4, %r1, 40; add.s64 %rd3, %rd1, %rd4; mul.wide.u32 %rd5, %r1, 16; add.s64 %rd6, %rd2, %rd5;\n"
    )
    body += FRAGMENTS
    for number, variant in enumerate(VARIANTS):
        body += mma(*variant)
        for i in range(variant[0][0] // 4):
            body += f"st.global.u32 [%rd6+{512 * number + 4 * i}], %d{i};\n"
    return body


def fragments_of(shape, a, b, c):
    m, k = shape
    x = np.zeros((32, 10), np.uint32)
    codes = x.view(np.uint8)
    for lane in range(32):
        for i in range(m * k // 32):
            codes[lane, i] = a[place_in_a(shape, lane, i)]
        for i in range(k * 8 // 32):
            codes[lane, 16 + i] = b[place_in_b(shape, lane, i)]
        for i in range(m * 8 // 32):
            x[lane, 6 + i] = c[place_in_c(shape, lane, i)].view(np.uint32)
    return x


def product(a, b, c, signs, saturates):
    a, b = (
        x.view(np.int8 if sign == "s" else np.uint8).astype(np.int64) for x, sign in zip((a, b), signs, strict=True)
    )
    exact = a @ b + c.astype(np.int64)
    return np.clip(exact, -(2**31), 2**31 - 1) if saturates else exact.astype(np.int32)


EDGE_CODES = np.array([0, 1, 127, 128, 129, 255], np.uint8)
EDGE_SUMS = np.array([-(2**31), -(2**31) + 1, -1, 0, 2**31 - 1, 2**31 - 2], np.int32)


def operands(shape, kind, rng):
    m, k = shape
    if kind == "random":
        a, b = (rng.integers(0, 256, size, dtype=np.uint8) for size in ((m, k), (k, 8)))
        return a, b, rng.integers(-(2**31), 2**31, (m, 8)).astype(np.int32)
    if kind == "edges":
        return rng.choice(EDGE_CODES, (m, k)), rng.choice(EDGE_CODES, (k, 8)), rng.choice(EDGE_SUMS, (m, 8))
    most_a, most_b, start = kind  # one code everywhere, and where the sum starts
    return np.full((m, k), most_a, np.uint8), np.full((k, 8), most_b, np.uint8), np.full((m, 8), start, np.int32)


EXTREMES = [(a, b, c) for a in (128, 127, 255) for b in (128, 127, 255) for c in (-(2**31), 2**31 - 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["random", "edges", *EXTREMES], ids=str)
def test_mma(shape, kind):
    rng = np.random.default_rng(SHAPES.index(shape))
    a, b, c = operands(shape, kind, rng)
    out = np.zeros((len(VARIANTS), 32, 4), np.int32)
    assert run(every_mma(), fragments_of(shape, a, b, c), out).ok
    for number, (variant_shape, signs, saturates) in enumerate(VARIANTS):
        if variant_shape != shape:
            continue
        expected = product(a, b, c, signs, saturates)
        for lane in range(32):
            for i in range(shape[0] // 4):
                assert out[number, lane, i] == expected[place_in_c(shape, lane, i)], (signs, saturates, lane, i)


def test_mma_overwrites_its_own_operands():
    """D may be C, or A."""
    shape, rng = (16, 32), np.random.default_rng(7)
    a, b, c = operands(shape, "random", rng)
    begin = (
        "mul.wide.u32 %rd4, %r1, 40; add.s64 %rd3, %rd1, %rd4; mul.wide.u32 %rd5, %r1, 16; add.s64 %rd6, %rd2, %rd5;\n"
    )
    for name in "ca":
        out = np.zeros((32, 4), np.int32)
        body = begin + FRAGMENTS + mma(shape, "ss", False).replace("%d", f"%{name}")
        body += "".join(f"st.global.u32 [%rd6+{4 * i}], %{name}{i};\n" for i in range(4))
        assert run(body, fragments_of(shape, a, b, c), out).ok
        expected = product(a, b, c, "ss", False)
        for lane, i in itertools.product(range(32), range(4)):
            assert out[lane, i] == expected[place_in_c(shape, lane, i)]


SOME_MMA = mma((16, 32), "ss", False)
SOME_LDMATRIX = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%d0}, [%r2];\n"


@pytest.mark.parametrize("instruction", [SOME_MMA, "st.shared.v4.u32 [%r2], {%a0, %a1, %a2, %a3};\n" + SOME_LDMATRIX])
def test_the_whole_warp_must_take_part(instruction):
    x = np.zeros(32, np.int32)
    some = "setp.lt.u32 %p1, %r1, 7;\n"
    last = instruction.splitlines()[-1]
    guarded = some + instruction.replace(last, f"@%p1 {last}")
    assert "divergent warp instruction" in kinds(run(guarded, x, x))
    branch = some + "@%p1 bra AWAY;\n" + instruction + "AWAY:\n"
    assert "divergent warp instruction" in kinds(run(branch + instruction, x, x)) or kinds(run(branch, x, x))
    exited = some + "@%p1 ret;\n" + instruction
    assert "divergent warp instruction" in kinds(run(exited, x, x))
    assert "divergent warp instruction" in kinds(run(instruction, x, x, block=16))


def test_lanes_that_come_late_are_waited_for():
    """Lanes that took a detour laid out after the instruction arrive at it later."""
    x = np.zeros(32, np.int32)
    body = "setp.lt.u32 %p1, %r1, 7; @%p1 bra DETOUR;\nBACK:\n" + SOME_MMA + "bra END;\nDETOUR: bra BACK;\nEND:\n"
    assert run(body, x, x).ok


def test_mma_orders_no_memory():
    x = np.zeros(32, np.int32)
    body = """
    shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;
    MEETING
    xor.b32 %r5, %r3, 4; add.s32 %r6, %r2, %r5; ld.shared.u32 %r7, [%r6];
    """
    assert kinds(run(body.replace("MEETING", SOME_MMA), x, x)) == {"shared race"}
    assert run(body.replace("MEETING", SOME_MMA + "bar.warp.sync -1;"), x, x).ok


@pytest.mark.parametrize(
    "line",
    [
        SOME_MMA.replace("m16n8k32", "m8n8k32"),
        SOME_MMA.replace("{%d0, %d1, %d2, %d3}", "{%d0, %d1}"),
        SOME_MMA.replace(".s8.s8.", ".s4.s4."),
        SOME_MMA.replace(".aligned", ""),
        SOME_LDMATRIX.replace("{%d0}", "{%d0, %d1}"),
        SOME_LDMATRIX.replace(".b16", ".b8"),
        "cp.async.cg.shared.global [%r2], [%rd1], 8;",
        "cp.async.ca.shared.global [%r2], [%rd1], 12;",
    ],
)
def test_what_the_isa_does_not_have_is_quoted(line):
    with pytest.raises(PtxError) as error:
        run(line, np.zeros(1, np.int32), np.zeros(1, np.int32))
    assert line.split()[0] in str(error.value)


# ldmatrix. x: an offset in shared memory for each lane, then what shared memory holds.

FILL = """
mul.wide.u32 %rd3, %r1, 4; add.s64 %rd4, %rd1, %rd3; ld.global.u32 %r3, [%rd4]; add.s32 %r4, %r2, %r3;
shl.b32 %r5, %r1, 7; cvt.u64.u32 %rd5, %r5; add.s64 %rd6, %rd1, %rd5; add.s32 %r6, %r2, %r5;
"""
for _i in range(8):
    FILL += f"ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd6+{128 + 16 * _i}];\n"
    FILL += f"st.shared.v4.u32 [%r6+{16 * _i}], {{%r10, %r11, %r12, %r13}};\n"
FILLED = FILL + "bar.warp.sync -1;\n"
OUT = "mul.wide.u32 %rd7, %r1, 16; add.s64 %rd8, %rd2, %rd7;\n"
LDMATRIX = tuple(itertools.product((1, 2, 4), (False, True)))


def ldmatrix(count, transposed):
    name = f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    return f"{name} {registers('d', count)}, [%r4];\n"


def every_ldmatrix():
    body = FILLED + OUT
    for number, (count, transposed) in enumerate(LDMATRIX):
        body += ldmatrix(count, transposed)
        body += "".join(f"st.global.u32 [%rd8+{512 * number + 4 * i}], %d{i};\n" for i in range(count))
    return body


def addressed(offsets, rng):
    """x of these offsets, with random contents of 4096 bytes after them."""
    memory = rng.integers(0, 256, 4096, dtype=np.uint8)
    return np.concatenate([np.asarray(offsets, np.uint32).view(np.uint8), memory]), memory


def test_ldmatrix():
    rng = np.random.default_rng(0)
    for offsets in (np.arange(32) * 16, np.arange(32) * 128, rng.integers(0, 256, 32) * 16):
        x, memory = addressed(offsets, rng)
        out = np.zeros((len(LDMATRIX), 32, 4), np.uint32)
        result = run(every_ldmatrix(), x, out, shared=4096)
        assert result.ok, result.reports
        for number, (count, transposed) in enumerate(LDMATRIX):
            for m in range(count):
                rows = np.stack([memory[at : at + 16].view(np.uint16) for at in offsets[8 * m : 8 * m + 8]])
                matrix = rows.T if transposed else rows
                # Lane l has row l / 4, columns l % 4 * 2 and the next: the matrix's elements in order, two a lane.
                expected = np.ascontiguousarray(matrix).view(np.uint32).reshape(32)
                np.testing.assert_array_equal(out[number, :, m], expected, str((count, transposed, m)))


def test_ldmatrix_of_fewer_matrices_uses_fewer_addresses():
    x, _ = addressed([*range(0, 128, 16), *[0x7FFFFFF1] * 24], np.random.default_rng(0))
    out = np.zeros(512, np.uint32)
    assert run(FILLED + ldmatrix(1, False), x, out, shared=4096).ok
    # but for sm_75, where all lanes' addresses must be good
    assert kinds(run(FILLED + ldmatrix(1, False), x, out, shared=4096, target="sm_75")) == {"misaligned access"}
    assert kinds(run(FILLED + ldmatrix(2, False), x, out, shared=4096)) == {"misaligned access"}


def test_ldmatrix_is_checked():
    rng = np.random.default_rng(0)
    rows = list(range(0, 512, 16))
    out = np.zeros(512, np.uint32)
    for wrong, kind in ((8, "misaligned access"), (4096, "out of bounds")):
        x, _ = addressed([*rows[:-1], wrong], rng)
        assert kinds(run(FILLED + ldmatrix(4, False), x, out, shared=4096)) == {kind}
    x, _ = addressed([*rows[:-1], 4096], rng)
    assert kinds(run(FILLED + ldmatrix(4, True), x, out, shared=4112)) == {"uninitialized read"}
    # A lane's own row is not its own alone: others get its elements.
    x, _ = addressed(np.arange(32) * 128, rng)
    assert kinds(run(FILL + ldmatrix(4, False), x, out, shared=4096)) == {"shared race"}
    # and a store after it, by whichever lane, is not ordered after their reads
    after = "st.shared.u32 [%r6], %r1;\n"
    assert kinds(run(FILLED + ldmatrix(4, False) + after, x, out, shared=4096)) == {"shared race"}
    assert run(FILLED + ldmatrix(4, False) + "bar.warp.sync -1;" + after, x, out, shared=4096).ok


@pytest.mark.parametrize(("stride", "wavefronts"), [(16, 1), (32, 2), (64, 4), (128, 8), (144, 1), (80, 1)])
def test_ldmatrix_counts_bank_conflicts(stride, wavefronts):
    """Eight rows of 16 bytes are one wavefront where they fall into different banks."""
    offsets = (np.arange(32) * stride) % 4096
    out = np.zeros(512, np.uint32)
    for count in (1, 2, 4):
        x, _ = addressed(offsets // 16 * 16, np.random.default_rng(0))
        with_it = run(FILLED + ldmatrix(count, False), x, out, shared=4096).counters
        without = run(FILLED, x, out, shared=4096).counters
        if stride * 32 <= 4096 or count == 1:
            assert with_it.shared_wavefronts - without.shared_wavefronts == wavefronts * count
        assert with_it.ideal_shared_wavefronts - without.ideal_shared_wavefronts == count


# stmatrix. x: a word for each lane and matrix; out: what shared memory holds after it.


def stmatrix(count, transposed):
    name = f"stmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    return f"{name} [%r4], {registers('a', count)};\n"


STORED = """
mul.wide.u32 %rd3, %r1, 16; add.s64 %rd4, %rd1, %rd3;
ld.global.v4.u32 {%a0, %a1, %a2, %a3}, [%rd4]; shl.b32 %r3, %r1, 4; add.s32 %r4, %r2, %r3;
STMATRIX bar.warp.sync -1; READ
add.s64 %rd5, %rd2, %rd3; ld.shared.v4.u32 {%d0, %d1, %d2, %d3}, [%r4]; st.global.v4.u32 [%rd5], {%d0, %d1, %d2, %d3};
"""


@pytest.mark.parametrize(("count", "transposed"), LDMATRIX)
def test_stmatrix(count, transposed):
    x, out = np.random.default_rng(count).integers(0, 2**32, (32, 4), dtype=np.uint32), np.zeros((32, 4), np.uint32)
    lanes_with_rows = "setp.lt.u32 %p1, %r1, " + f"{8 * count}; @!%p1 bra END;\n"
    body = STORED.replace("STMATRIX", stmatrix(count, transposed)).replace("READ", lanes_with_rows) + "END:\n"
    result = run(body, x, out)
    assert result.ok, result.reports
    for m in range(count):
        matrix = np.ascontiguousarray(x[:, m]).view(np.uint16).reshape(8, 8)
        rows = np.ascontiguousarray(out[8 * m : 8 * m + 8]).view(np.uint16)
        np.testing.assert_array_equal(rows, matrix.T if transposed else matrix)
    assert result.counters.shared_wavefronts == result.counters.ideal_shared_wavefronts == 2 * count


def test_stmatrix_is_checked():
    x = np.zeros((32, 4), np.uint32)
    body = STORED.replace("STMATRIX", stmatrix(4, False)).replace("READ", "")
    assert run(body, x, x.copy()).ok
    # A lane's own row has elements of others.
    assert kinds(run(body.replace("bar.warp.sync -1;", ""), x, x.copy())) == {"shared race"}
    assert kinds(run(body.replace(" [%r4], {%a", " [%r4+8], {%a"), x, x.copy())) >= {"misaligned access"}
    assert kinds(run(body.replace(" [%r4], {%a", " [%r4+8192], {%a"), x, x.copy())) >= {"out of bounds"}
    before = body.replace("stmatrix", "ld.shared.u32 %r7, [%r2]; stmatrix")
    assert "shared race" in kinds(run(before, x, x.copy()))
    assert "divergent warp instruction" in kinds(run(body, x, x.copy(), block=16))
    with pytest.raises(PtxError, match="unknown instruction"):
        run(body.replace(".b16 [", ".b8 ["), x, x)

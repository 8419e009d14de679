"""What the emulator's threads do together: divergence, exchanges between lanes, memory, atomic operations.

Each kernel gets x, 1024 words; %r1 is the thread's number in its block, and %rd2 the address of its word.
"""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.emulator import Module, control, memory_access

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
REGISTERS = (
    ".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<33>; .reg .f32 %f<9>; .reg .b64 %rd<33>; .reg .f64 %fd<9>;"
)
BEGIN = """
ld.param.u64 %rd1, [x]; mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2;
cvt.u64.u32 %rd3, %r2; add.s64 %rd2, %rd1, %rd3;
"""
END = "st.global.u32 [%rd2], %r3;"  # most kernels leave their result in %r3
LANES = np.arange(32)


def launch(body, shared="", *, block=32, grid=1, x=None, seed=0, dynamic=0):
    x = np.zeros(1024, np.uint32) if x is None else x
    text = f"{HEAD}\n.visible .entry k(.param .u64 x)\n{{\n{REGISTERS}\n{shared}\n{BEGIN}\n{body}\nret;\n}}\n"
    module = Module.from_ptx(text, "sm_80")
    return module.launch("k", grid=grid, block=block, args=[x], seed=seed, shared=dynamic), x


def run(body, shared="", **options):
    """The words after a launch that nothing is reported of."""
    result, x = launch(body, shared, **options)
    assert result.ok, result.reports
    return x


def kinds(body, shared="", **options):
    return {report.kind for report in launch(body, shared, **options)[0].reports}


def same(actual, expected):
    np.testing.assert_array_equal(actual[: len(expected)], np.asarray(expected, np.int64) & 0xFFFFFFFF)


# Divergence.


def test_ways_meet_at_a_barrier_wherever_they_stand():
    """Odd threads come to it by code that stands behind it."""
    body = """
    mov.u32 %r5, smem; add.u32 %r5, %r5, %r2; and.b32 %r4, %r1, 1; setp.ne.u32 %p1, %r4, 0; mov.u32 %r3, 7;
    @%p1 bra ODD;
    JOIN: st.shared.u32 [%r5], %r3; bar.sync 0; xor.b32 %r5, %r5, 128; ld.shared.u32 %r3, [%r5];
    bra.uni DONE;
    ODD: add.u32 %r3, %r1, 100; bra.uni JOIN;
    DONE: st.global.u32 [%rd2], %r3;
    """
    for seed in range(4):
        expected = [100 + (thread ^ 32) if thread % 2 else 7 for thread in range(64)]
        same(run(body, ".shared .align 256 .b8 smem[256];", block=64, seed=seed), expected)


def test_a_way_past_a_barrier_is_reported():
    """Even if it comes back to the barrier, a round later."""
    body = """
    and.b32 %r4, %r1, 1; setp.ne.u32 %p1, %r4, 0; mov.u32 %r3, 0;
    ROUND: @%p1 bra PAST; bar.sync 0;
    PAST: setp.ne.u32 %p1, %r3, %r3; add.u32 %r3, %r3, 1; setp.lt.u32 %p2, %r3, 2; @%p2 bra ROUND;
    """
    assert "divergent barrier" in kinds(body + END)


def test_nested_ifs_meet_again():
    """Each of four paths adds its mark; afterwards all 32 lanes run together."""
    body = """
    and.b32 %r4, %r1, 1; and.b32 %r5, %r1, 2; setp.eq.u32 %p1, %r4, 0; setp.eq.u32 %p2, %r5, 0;
    @%p1 bra EVEN; @%p2 bra ODD0; add.u32 %r3, %r3, 1000; bra.uni ODD; ODD0: add.u32 %r3, %r3, 2000; ODD:
    add.u32 %r3, %r3, 1; bra.uni JOIN;
    EVEN: @%p2 bra EVEN0; add.u32 %r3, %r3, 3000; bra.uni EVENS; EVEN0: add.u32 %r3, %r3, 4000; EVENS:
    add.u32 %r3, %r3, 2;
    JOIN: activemask.b32 %r6; popc.b32 %r6, %r6; mad.lo.u32 %r3, %r6, 10, %r3;
    """
    expected = [320 + (4002, 2001, 3002, 1001)[lane % 4] for lane in range(32)]
    same(run(body + END), expected)


@pytest.mark.parametrize("seed", range(3))
def test_loops_of_different_lengths(seed):
    """Lane n adds 1 + 2 + ... + n, with an inner loop of n % 3 rounds; every lane is back at the end."""
    body = """
    mov.u32 %r4, 0; mov.u32 %r3, 0; rem.u32 %r7, %r1, 3;
    LOOP: setp.ge.u32 %p1, %r4, %r1; @%p1 bra DONE; add.u32 %r4, %r4, 1; add.u32 %r3, %r3, %r4; mov.u32 %r5, 0;
    INNER: setp.ge.u32 %p2, %r5, %r7; @%p2 bra LOOP; add.u32 %r5, %r5, 1; add.u32 %r3, %r3, 1000; bra.uni INNER;
    DONE: activemask.b32 %r8; setp.ne.u32 %p3, %r8, -1; @%p3 mov.u32 %r3, 7;
    """
    n = np.arange(64)
    same(run(body + END, block=64, seed=seed)[:32], (n * (n + 1) // 2 + 1000 * n * (n % 3))[:32])


def test_guards_keep_what_they_skip():
    body = """
    setp.lt.u32 %p1, %r1, 5; mov.u32 %r3, 1; @%p1 mov.u32 %r3, 2; @!%p1 add.u32 %r3, %r3, 10;
    setp.lt.u32 %p2, %r1, 9; @%p1 setp.eq.u32 %p2, %r1, 3; @%p2 add.u32 %r3, %r3, 100;
    """
    expected = [2 + 100 * (n == 3) if n < 5 else 11 + 100 * (n < 9) for n in range(32)]
    same(run(body + END), expected)
    x = run("setp.lt.u32 %p1, %r1, 5; mov.u32 %r3, 9; @%p1 st.global.u32 [%rd2], %r3;")
    same(x, [9] * 5 + [0] * 27)


def test_a_guarded_return_lets_the_others_on():
    same(run("setp.ge.u32 %p1, %r1, 20; @%p1 ret; mov.u32 %r3, 6;" + END), [6] * 20 + [0] * 12)


# Registers.


def test_special_registers():
    for name, expected in {
        "%tid.x": lambda t: t % 4, "%tid.y": lambda t: t // 4 % 3, "%tid.z": lambda t: t // 12,
        "%ntid.x": lambda t: 4, "%ntid.y": lambda t: 3, "%ntid.z": lambda t: 4,
        "%laneid": lambda t: t % 32, "%warpid": lambda t: t // 32, "%nwarpid": lambda t: 2,
        "%lanemask_eq": lambda t: 1 << t % 32, "%lanemask_lt": lambda t: (1 << t % 32) - 1,
        "%lanemask_le": lambda t: (2 << t % 32) - 1, "%lanemask_gt": lambda t: -(2 << t % 32),
        "%lanemask_ge": lambda t: -(1 << t % 32),
    }.items():  # fmt: skip
        body = f"""
        mov.u32 %r4, %tid.y; mov.u32 %r5, %tid.z; mad.lo.u32 %r6, %r5, 3, %r4; mad.lo.u32 %r6, %r6, 4, %r1;
        mul.wide.u32 %rd4, %r6, 4; add.s64 %rd5, %rd1, %rd4; mov.u32 %r3, {name}; st.global.u32 [%rd5], %r3;
        """
        same(run(body, block=(4, 3, 4)), [expected(t) for t in range(48)])


def test_blocks_know_where_they_are():
    body = """
    mov.u32 %r4, %ctaid.x; mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.z; mov.u32 %r7, %nctaid.x; mov.u32 %r8, %nctaid.y;
    mov.u32 %r9, %nctaid.z; mad.lo.u32 %r10, %r6, %r8, %r5; mad.lo.u32 %r10, %r10, %r7, %r4;
    mul.wide.u32 %rd4, %r10, 4; add.s64 %rd5, %rd1, %rd4;
    mad.lo.u32 %r3, %r9, 10, %r4; mad.lo.u32 %r11, %r5, 100, %r3; mad.lo.u32 %r11, %r6, 1000, %r11;
    st.global.u32 [%rd5], %r11;
    """
    expected = [20 + b % 5 + 100 * (b // 5 % 3) + 1000 * (b // 15) for b in range(30)]
    same(run(body, grid=(5, 3, 2), block=1, seed=4), expected)


def test_inner_scopes_hide_registers():
    body = (
        "mov.u32 %r3, 5; { .reg .b32 %r3; .reg .b32 t; mov.u32 %r3, 7; mov.u32 t, %r3; { .reg .b64 t; mov.u64 t, 1; } }"
    )
    same(run(body + END), [5] * 32)


def test_packing():
    """mov between a register and its parts, the lowest first; _ takes what nobody wants."""
    body = """
    mov.b32 {%rs1, %rs2}, %r1; add.u16 %rs1, %rs1, 300; mov.b32 %r4, {%rs2, %rs1}; mov.b64 %rd4, {%r4, %r1};
    mov.b64 {_, %r5}, %rd4; mov.b64 {%rs3, %rs4, %rs5, %rs6}, %rd4; mov.b64 %rd5, {%rs5, %rs4, %rs3, %rs6};
    mov.b64 {%r6, %r7}, %rd5; add.u32 %r3, %r4, %r5; xor.b32 %r3, %r3, %r6;
    """
    same(run(body + END), [((n + 300 << 16) + n) ^ (n | n + 300 << 16) for n in range(32)])


# Memory.


def test_vectors_and_widths():
    """Each thread moves 16 bytes as one, two and four words, and bytes extended by sign or zeros."""
    x = np.arange(1024, dtype=np.uint32) * 0x01F3_5791
    bytes_of = x.view(np.uint8).copy()
    body = """
    shl.b64 %rd4, %rd3, 2; add.s64 %rd5, %rd1, %rd4; ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd5];
    ld.global.nc.v2.b64 {%rd6, %rd7}, [%rd5]; mov.b64 {%r8, %r9}, %rd7; xor.b32 %r10, %r9, %r7;
    st.global.v2.u32 [%rd5+2048], {%r7, %r10}; ld.global.s8 %r11, [%rd5+3]; ld.global.u8 %r12, [%rd5+3];
    ld.global.v4.u8 {%rs1, %rs2, %rs3, %rs4}, [%rd5+4]; cvt.u32.u16 %r13, %rs2; mad.lo.s32 %r12, %r13, 256, %r12;
    st.global.v2.b32 [%rd5+2056], {%r11, %r12};
    """
    before = x.copy()
    out = run(body, x=x)[512:640].reshape(32, 4)
    for n in range(32):
        signed = int(bytes_of[16 * n + 3]) - 256 * (bytes_of[16 * n + 3] > 127)
        expected = [
            before[4 * n + 3],
            0,
            signed % (1 << 32),
            int(bytes_of[16 * n + 5]) * 256 + int(bytes_of[16 * n + 3]),
        ]
        assert out[n].tolist() == expected


def test_narrow_stores_keep_their_neighbours():
    x = np.full(1024, 0xAABBCCDD, np.uint32)
    same(run("cvt.u16.u32 %rs1, %r1; st.global.u8 [%rd2+1], %rs1; st.global.b16 [%rd2+2], %rs1;", x=x)[:32],
         0xDD | LANES << 8 | LANES << 16)  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_shared_and_local_memory_return_what_they_got(seed):
    shared = ".shared .align 16 .b8 first[512]; .shared .align 4 .b8 second[128]; .local .align 8 .b8 mine[16];"
    body = """
    mov.u32 %r4, first; add.u32 %r5, %r4, %r2; mov.u32 %r6, second; shl.b32 %r7, %r2, 3; add.u32 %r7, %r4, %r7;
    st.shared.v2.u32 [%r7], {%r1, %r2}; mov.u64 %rd6, mine; st.local.u32 [%rd6+4], %r1; ld.local.u32 %r12, [%rd6+4];
    cvta.local.u64 %rd7, %rd6; ld.u32 %r13, [%rd7+4]; bar.sync 0;
    xor.b32 %r8, %r2, 4; shl.b32 %r8, %r8, 3; add.u32 %r8, %r4, %r8; ld.shared.v2.u32 {%r9, %r10}, [%r8];
    cvt.u64.u32 %rd4, %r8; cvta.shared.u64 %rd5, %rd4; ld.u32 %r11, [%rd5+4];
    mad.lo.u32 %r3, %r9, 1000, %r10; add.u32 %r3, %r3, %r11; sub.u32 %r3, %r3, %r12; sub.u32 %r3, %r3, %r13;
    """
    other = np.arange(16) ^ 1
    same(run(body + END, shared, block=16, seed=seed), other * 1000 + other * 8 - 2 * np.arange(16))


def test_fences_let_on():
    same(run("membar.gl; fence.acq_rel.gpu; fence.sc.cta; mov.u32 %r3, 4;" + END), [4] * 32)


def test_addresses_of_32_bits_wrap():
    body = "mov.u32 %r4, smem; sub.u32 %r5, %r4, 64; st.shared.u32 [%r5+64], 77; ld.shared.u32 %r3, [%r4];"
    same(run(body + END, ".shared .align 4 .b8 smem[64];", block=1), [77])


# Exchanges between lanes.


def shuffled(mode, step, limits):
    """PTX ISA, shfl.sync, for all lanes: where each reads, and whether that was in range."""
    clamp, segment = limits & 31, limits >> 8 & 31
    sources, inside = [], []
    for lane in range(32):
        low = lane & segment
        high = low | clamp & ~segment
        at = {"up": lane - step, "down": lane + step, "bfly": lane ^ step, "idx": low | step & ~segment}[mode]
        fits = at >= high if mode == "up" else at <= high
        sources.append(at if fits else lane)
        inside.append(int(fits))
    return np.array(sources), np.array(inside)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles(mode):
    """In whole warps and in segments of 16, 8 and 4; the first pairs are what __shfl_sync's `width` makes."""
    default = 0 if mode == "up" else 31
    trials = [(step, default | (32 - n) << 8) for n in (32, 16, 8, 4) for step in (0, 1, 2, 5, 16, 31)]
    trials += [(3, 20), (9, 7 | 24 << 8), (17, 11 | 8 << 8)]
    text = []
    for i, (step, limits) in enumerate(trials):
        text.append(
            f"mov.u32 %r5, {step}; shfl.sync.{mode}.b32 %r3|%p1, %r1, %r5, {limits}, -1; selp.b32 %r4, 256, 0, %p1;"
        )
        text.append(f"or.b32 %r3, %r3, %r4; st.global.u32 [%rd2+{128 * i}], %r3;")
    x = run("\n".join(text)).reshape(-1, 32)
    for row, trial in zip(x, trials, strict=False):
        sources, inside = shuffled(mode, *trial)
        np.testing.assert_array_equal(row, sources + 256 * inside, err_msg=f"{mode} {trial}")


def test_a_sum_over_the_warp():
    steps = "".join(f"shfl.sync.bfly.b32 %r4, %r3, {n}, 31, -1; add.s32 %r3, %r3, %r4;" for n in (16, 8, 4, 2, 1))
    same(run("mov.u32 %r3, %r1;" + steps + END), [496] * 32)


def test_half_a_warp_exchanges_alone():
    body = """
    setp.lt.u32 %p1, %r1, 16; @!%p1 bra HIGH; shfl.sync.idx.b32 %r3, %r1, 3, 31, 0xFFFF; bra.uni END;
    HIGH: shfl.sync.idx.b32 %r3, %r1, 19, 31, 0xFFFF0000; END:
    """
    same(run(body + END), [3] * 16 + [19] * 16)


def test_exchanges_wait_for_diverged_lanes():
    """The upper half comes later; lanes that return are not waited for."""
    body = """
    setp.lt.u32 %p1, %r1, 16; @%p1 bra MEET; mul.lo.u32 %r1, %r1, 3; MEET: shfl.sync.bfly.b32 %r3, %r1, 16, 31, -1;
    """
    same(run(body + END), [3 * (n + 16) for n in range(16)] + list(range(16)))
    leave = """
    setp.ge.u32 %p1, %r1, 8; @%p1 bra LEAVE; vote.sync.ballot.b32 %r3, 1, -1; st.global.u32 [%rd2], %r3; ret; LEAVE:
    """
    same(run(leave), [0xFF] * 8 + [0] * 24)


def test_exchanges_with_absent_lanes_are_reported():
    assert kinds("shfl.sync.idx.b32 %r3, %r1, 20, 31, -1;", block=16) == {"divergent warp"}
    assert kinds("shfl.sync.idx.b32 %r3, %r1, 0, 31, 0xFF;") == {"divergent warp"}
    assert kinds("setp.lt.u32 %p1, %r1, 9; @%p1 redux.sync.add.s32 %r3, %r1, -1;") == {"divergent warp"}


def test_exchanges_order_no_memory():
    """A shuffle between a store and another lane's load does not replace bar.warp.sync."""
    body = """
    mov.u32 %r4, smem; add.u32 %r5, %r4, %r2; st.shared.u32 [%r5], %r1; SYNC
    xor.b32 %r6, %r5, 4; ld.shared.u32 %r3, [%r6];
    """
    shared = ".shared .align 128 .b8 smem[128];"
    assert kinds(body.replace("SYNC", "shfl.sync.idx.b32 %r7, %r1, 0, 31, -1;"), shared) == {"shared race"}
    same(run(body.replace("SYNC", "bar.warp.sync -1;") + END, shared), LANES ^ 1)


def test_votes():
    text = []
    for i, bound in enumerate((0, 7, 32)):
        text.append(f"setp.lt.u32 %p1, %r1, {bound}; mov.u32 %r3, 0;")
        for bit, mode in enumerate(("any", "all", "uni")):
            text.append(f"vote.sync.{mode}.pred %p2, %p1, -1; @%p2 or.b32 %r3, %r3, {1 << bit};")
        text.append("vote.sync.all.pred %p2, !%p1, -1; @%p2 or.b32 %r3, %r3, 8;")
        text.append(f"st.global.u32 [%rd2+{256 * i}], %r3; vote.sync.ballot.b32 %r3, %p1, -1;")
        text.append(f"st.global.u32 [%rd2+{256 * i + 128}], %r3;")
    x = run("\n".join(text)).reshape(-1, 32)
    expected = [4 + 8, 0, 1, 0x7F, 1 + 2 + 4, 0xFFFFFFFF]
    for row, value in zip(x, expected, strict=False):
        assert set(row.tolist()) == {value}


def test_votes_of_a_part():
    body = "setp.lt.u32 %p1, %r1, 8; setp.eq.u32 %p2, %r1, 3; @%p1 vote.sync.ballot.b32 %r3, %p2, 0xFF;"
    same(run(body + END), [8] * 8 + [0] * 24)


@pytest.mark.parametrize("members", [0xFFFFFFFF, 0x00F0F00F])
def test_reductions(members):
    values = (LANES * 0x9E3779B1 + 0x7FFFFFF0) & 0xFFFFFFFF
    signed = values.astype(np.uint32).view(np.int32)
    chosen = [bool(members >> n & 1) for n in range(32)]
    expected = {
        "add.u32": values[chosen].sum(), "add.s32": values[chosen].sum(),
        "min.u32": values[chosen].min(), "max.u32": values[chosen].max(),
        "min.s32": signed[chosen].min(), "max.s32": signed[chosen].max(),
        "and.b32": np.bitwise_and.reduce(values[chosen]), "or.b32": np.bitwise_or.reduce(values[chosen]),
        "xor.b32": np.bitwise_xor.reduce(values[chosen]),
    }  # fmt: skip
    text = [f"mad.lo.u32 %r4, %r1, 0x9E3779B1, 0x7FFFFFF0; shl.b32 %r5, 1, %r1; and.b32 %r5, %r5, {members:#x};"]
    text.append(f"setp.ne.u32 %p1, %r5, 0; mov.u32 %r6, {members:#x};")
    for i, name in enumerate(expected):
        text.append(f"@%p1 redux.sync.{name} %r3, %r4, %r6; @%p1 st.global.u32 [%rd2+{128 * i}], %r3;")
    x = run("\n".join(text)).reshape(-1, 32)
    for row, (name, value) in zip(x, expected.items(), strict=False):
        assert set(row[chosen].tolist()) == {int(value) & 0xFFFFFFFF}, name


# Atomic operations.

ATOMICS = {
    "add": lambda old, a, b: old + a,
    "min": lambda old, a, b: min(old, a),
    "max": lambda old, a, b: max(old, a),
    "and": lambda old, a, b: old & a,
    "or": lambda old, a, b: old | a,
    "xor": lambda old, a, b: old ^ a,
    "exch": lambda old, a, b: a,
    "cas": lambda old, a, b: b if old == a else old,
    "inc": lambda old, a, b: 0 if old >= a else old + 1,
    "dec": lambda old, a, b: a if old == 0 or old > a else old - 1,
}
TYPES = {
    **dict.fromkeys(("min", "max"), ("u32", "s32", "u64", "s64")),
    **dict.fromkeys(("and", "or", "xor", "exch", "cas"), ("b32", "b64")),
    **dict.fromkeys(("inc", "dec"), ("u32",)),
    "add": ("u32", "s32", "u64"),
}


@pytest.mark.parametrize("space", ["global", "shared", "generic"])
def test_atomic_operations(space):
    """Every operation on pairs of values, one thread to a pair: what it leaves and what it gives."""
    pairs = [
        (o, a) for o in (0, 1, 5, (1 << 64) - 1, 1 << 31, 1 << 63) for a in (0, 1, 5, 6, (1 << 64) - 1, 0x8000_0001)
    ]
    olds, others = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
    names = [(name, kind) for name in ATOMICS for kind in TYPES[name]]
    text = ["mul.wide.u32 %rd4, %r1, 8; add.s64 %rd5, %rd1, %rd4; ld.global.b64 %rd6, [%rd5];"]
    text.append("ld.global.b64 %rd7, [%rd5+512]; mov.b64 {%r6, _}, %rd6; mov.b64 {%r7, _}, %rd7;")
    text.append("mov.u64 %rd9, smem; cvta.shared.u64 %rd9, %rd9; add.s64 %rd9, %rd9, %rd4;")
    text.append("shl.b32 %r9, %r1, 3; mov.u32 %r10, smem; add.u32 %r9, %r9, %r10;")
    at, name_of_space = {"global": ("%rd5", ".global"), "shared": ("%r9", ".shared"), "generic": ("%rd9", "")}[space]
    for i, (name, kind) in enumerate(names):
        where = f"[{at}+{4096 + 512 * i}]" if space == "global" else f"[{at}]"
        a, d = ("%rd7", "%rd8") if kind[1:] == "64" else ("%r7", "%r8")
        third = f", {a.replace('7', '6')}" if name == "cas" else ""
        text.append(f"st{name_of_space}.b64 {where}, %rd6; mov.b64 %rd8, 0; mov.b32 %r8, 0;")
        text.append(f"atom{name_of_space}.{name}.{kind} {d}, {where}, {a}{third};")
        if kind[1:] == "32":
            text.append("cvt.u64.u32 %rd8, %r8;")
        text.append(f"ld{name_of_space}.b64 %rd10, {where}; xor.b64 %rd10, %rd10, %rd8;")
        text.append(f"st.global.b64 [%rd5+{4096 + 512 * i}], %rd10;")
    x = np.zeros(512 + 64 * len(names), np.uint64)
    x[: len(pairs)], x[64 : 64 + len(pairs)] = olds, others
    out = run("\n".join(text), ".shared .align 8 .b8 smem[512];", block=len(pairs), x=x)[512:].reshape(-1, 64)
    for row, (name, kind) in zip(out, names, strict=True):
        n = int(kind[1:])
        for (old, a), got in zip(pairs, row.tolist(), strict=False):
            x, y = (v % (1 << n) - (1 << n) * (kind[0] == "s" and v >> (n - 1) & 1) for v in (old, a))
            after = ATOMICS[name](x, y, x) % (1 << n)
            memory = old >> n << n | after
            assert got == memory ^ (old % (1 << n)), f"{name}.{kind} {old:#x} {a:#x}"


@pytest.mark.parametrize("seed", range(3))
def test_atomics_of_many_threads_and_blocks_are_no_race(seed):
    """A sum over blocks in global memory by way of one in shared memory, with red and atom; a histogram too."""
    body = """
    mov.u32 %r4, smem; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%r4], 0; bar.sync 0;
    add.u32 %r5, %r1, 1; red.shared.add.u32 [%r4], %r5; and.b32 %r6, %r1, 3; mul.wide.u32 %rd4, %r6, 4;
    add.s64 %rd4, %rd4, %rd1; atom.global.add.u32 %r7, [%rd4+64], 1; bar.sync 0;
    @%p1 ld.shared.u32 %r8, [%r4]; @%p1 red.relaxed.gpu.global.add.u32 [%rd1], %r8; red.global.max.s32 [%rd1+4], %r1;
    """
    x = run(body, ".shared .align 4 .b8 smem[4];", block=96, grid=5, seed=seed)
    assert x[0] == 5 * 96 * 97 // 2
    assert x[1] == 95
    assert x[16:20].tolist() == [120] * 4


def test_atomics_race_with_plain_accesses():
    shared = ".shared .align 4 .b8 smem[4];"
    body = """
    mov.u32 %r4, smem; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%r4], 0; FIRST
    red.shared.add.u32 [%r4], 1; SECOND @%p1 ld.shared.u32 %r5, [%r4];
    """
    sync = "bar.sync 0;"
    for seed in range(3):
        assert kinds(body.replace("FIRST", sync).replace("SECOND", sync), shared, block=64, seed=seed) == set()
        no_first = kinds(body.replace("FIRST", "").replace("SECOND", sync), shared, block=64, seed=seed)
        assert "shared race" in no_first
        no_second = kinds(body.replace("FIRST", sync).replace("SECOND", ""), shared, block=64, seed=seed)
        assert no_second == {"shared race"}
    assert kinds("red.global.add.u32 [%rd1], 1; ld.global.u32 %r3, [%rd1];", grid=2) == {"race between blocks"}
    assert kinds("st.global.u32 [%rd1], 1; red.global.add.u32 [%rd1], 1;", block=1, grid=2) == {"race between blocks"}


def test_atomics_are_checked_like_other_accesses():
    assert kinds("red.global.add.u32 [%rd1+4096], 1;") == {"out of bounds"}
    assert kinds("red.global.add.u64 [%rd1+4], 1;") == {"misaligned access"}
    shared = "mov.u32 %r4, 0; red.shared.add.u32 [%r4], 1;"
    assert kinds(shared) == {"out of bounds"}
    assert kinds(shared, dynamic=16) == {"uninitialized read"}


def test_float_sums_in_memory():
    """Global memory flushes denormals, shared memory keeps them: PTX ISA, atom."""
    tiny = struct.unpack("<I", struct.pack("<f", 1e-40))[0]
    body = f"""
    mov.u32 %r4, smem; mov.b32 %f1, {tiny}; st.shared.f32 [%r4], %f1; atom.shared.add.f32 %f2, [%r4], %f1;
    ld.shared.b32 %r5, [%r4]; st.global.b32 [%rd1], %r5; st.global.f32 [%rd1+4], %f1;
    atom.global.add.f32 %f3, [%rd1+4], %f1; st.global.f32 [%rd1+8], %f3; mov.f32 %f4, 0f3FC00000;
    red.global.add.f32 [%rd1+12], %f4; red.global.add.f32 [%rd1+12], %f4;
    mov.f64 %fd1, 0d3FF8000000000000; red.global.add.f64 [%rd1+16], %fd1;
    """
    x = run(body, ".shared .align 4 .b8 smem[4];", block=1)
    assert x[:6].tolist() == [2 * tiny, 0, tiny, 0x40400000, 0, 0x3FF80000]


def test_every_pattern_is_tried():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_emulator_*.py"))
    words = set(re.findall(r"[a-z][\w.:]+", text))
    for pattern, _ in [*control.TABLE, *memory_access.TABLE]:
        assert any(pattern.fullmatch(word) for word in words), pattern.pattern

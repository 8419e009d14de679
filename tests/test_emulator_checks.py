"""The emulator sees what a sanitizer would see: each defect below is reported, and its mended twin is not.

The kernels are PTX by hand, so that a defect is exactly what the test says it is.
"""

import numpy as np
import pytest

from tests.emulator import DEVICES, LaunchError, Module, PtxError

HEAD = ".version 8.0\n.target sm_75\n.address_size 64\n"
REGISTERS = ".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<33>; .reg .f32 %f<9>; .reg .b64 %rd<33>;"
# %rd1: x, %r1: the thread's number in its block, %rd2: where x[thread] is, %r2: its offset in bytes
BEGIN = """
ld.param.u64 %rd1, [x]; mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2;
cvt.u64.u32 %rd3, %r2; add.s64 %rd2, %rd1, %rd3;
"""


def kernel(body, shared=""):
    return f"{HEAD}\n.visible .entry k(.param .u64 x)\n{{\n{REGISTERS}\n{shared}\n{BEGIN}\n{body}\nret;\n}}\n"


def run(body, shared="", *, block=64, grid=1, x=None, seed=0):
    x = np.zeros(1024, np.int32) if x is None else x
    return Module.from_ptx(kernel(body, shared), "sm_80").launch("k", grid=grid, block=block, args=[x], seed=seed), x


def kinds(result):
    return {report.kind for report in result.reports}


SHARED = ".shared .align 4 .b8 smem[256];"
# Each thread stores its number and reads its neighbour's in the other warp.
EXCHANGE = """
mov.u32 %r3, smem; add.s32 %r4, %r3, %r2; st.shared.u32 [%r4], %r1;
BARRIER
xor.b32 %r5, %r2, 128; add.s32 %r6, %r3, %r5; ld.shared.u32 %r7, [%r6];
st.global.u32 [%rd2], %r7;
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_barrier_orders_warps(seed):
    right, x = run(EXCHANGE.replace("BARRIER", "bar.sync 0;"), SHARED, seed=seed)
    assert right.ok, right.reports
    np.testing.assert_array_equal(x[:64], np.arange(64) ^ 32)
    wrong, _ = run(EXCHANGE.replace("BARRIER", ""), SHARED, seed=seed)
    assert kinds(wrong) & {"shared race", "uninitialized read"}


def test_a_race_needs_no_wrong_result():
    """A write after another warp's read, with no barrier between: right by luck, reported all the same."""
    body = EXCHANGE.replace("BARRIER", "bar.sync 0;") + "MORE st.shared.u32 [%r4], %r7;"
    assert "shared race" in kinds(run(body.replace("MORE", ""), SHARED)[0])
    assert run(body.replace("MORE", "bar.sync 0;"), SHARED)[0].ok


def test_lanes_of_a_warp_race_too():
    body = EXCHANGE.replace("128", "4")
    assert "shared race" in kinds(run(body.replace("BARRIER", ""), SHARED)[0])
    assert run(body.replace("BARRIER", "bar.warp.sync -1;"), SHARED)[0].ok


def test_named_barriers_order_who_meets_at_them():
    """The first warp arrives without waiting, the second waits for it."""
    body = """
    mov.u32 %r3, smem; add.s32 %r4, %r3, %r2; setp.ge.u32 %p1, %r1, 32; @%p1 bra READER;
    st.shared.u32 [%r4], %r1; bar.arrive 3, 64; bra END;
    READER: bar.sync 3, 64; ld.shared.u32 %r7, [%r4+-128]; st.global.u32 [%rd2], %r7;
    END:
    """
    right, x = run(body, SHARED, seed=3)
    assert right.ok, right.reports
    np.testing.assert_array_equal(x[32:64], np.arange(32))
    assert kinds(run(body.replace("bar.sync 3, 64;", ""), SHARED, seed=3)[0])


def test_out_of_bounds_of_every_memory():
    assert kinds(run("ld.global.u32 %r3, [%rd2+4096];")[0]) == {"out of bounds"}
    assert kinds(run("st.global.u32 [%rd1+-4], %r1;")[0]) == {"out of bounds"}
    assert kinds(run("mov.u32 %r3, smem; st.shared.u32 [%r3+256], %r1;", SHARED)[0]) == {"out of bounds"}
    assert kinds(run("ld.param.u64 %rd4, [x+8];")[0]) == {"out of bounds"}
    assert kinds(run("st.local.u32 [%r2], %r1;")[0]) == {"out of bounds"}


def test_an_access_out_of_bounds_changes_nothing():
    x = np.arange(8, dtype=np.int32)
    result, x = run("st.global.u32 [%rd2], %r1;", block=32, x=x)
    assert kinds(result) == {"out of bounds"}
    np.testing.assert_array_equal(x, np.arange(8))


def test_misaligned_accesses():
    assert kinds(run("ld.global.u32 %r3, [%rd2+2];")[0]) == {"misaligned access"}
    assert kinds(run("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd2];")[0]) == {"misaligned access"}
    assert kinds(run("mov.u32 %r3, smem; st.shared.u32 [%r3+1], %r1;", SHARED)[0]) == {"misaligned access"}


def test_shared_memory_that_nothing_wrote():
    assert kinds(run("mov.u32 %r3, smem; ld.shared.u32 %r4, [%r3];", SHARED)[0]) == {"uninitialized read"}


def test_blocks_race_in_global_memory():
    body = "mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.global.u32 [%rd1], %r3;"
    assert kinds(run(body, grid=2)[0]) == {"race between blocks"}
    assert run(body, grid=1)[0].ok
    reads = "mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r3, 0; @%p1 st.global.u32 [%rd2], %r3; ld.global.u32 %r4, [%rd2];"
    assert kinds(run(reads, grid=2, seed=5)[0]) == {"race between blocks"}


def test_threads_of_a_block_race_in_global_memory():
    """Two threads that store to one place, and a thread that reads what another stored; a barrier orders both."""
    both = "st.global.u32 [%rd1], %r1;"
    assert kinds(run(both)[0]) == {"race within a block"}
    one = f"setp.eq.u32 %p1, %r1, 0; @%p1 {both}"
    assert run(one)[0].ok
    last = "setp.eq.u32 %p2, %r1, 63; BARRIER @%p2 "
    for again in (both, "ld.global.u32 %r3, [%rd1];"):
        assert kinds(run(one + last.replace("BARRIER", "") + again)[0]) == {"race within a block"}
        assert run(one + last.replace("BARRIER", "bar.sync 0;") + again)[0].ok


def test_an_address_at_the_end_of_all_memory():
    """Its last byte's address is a small number again."""
    body = "mov.b64 %rd4, -4; {} ; st.global.u32 [%rd2], %r3;"
    for access in ("ld.shared.u32 %r3, [%rd4]", "ld.local.u32 %r3, [%rd4]", "ld.param.u32 %r3, [%rd4]"):
        assert kinds(run(body.format(access), SHARED)[0]) == {"out of bounds"}
    assert kinds(run("mov.b64 %rd4, -4; st.shared.u32 [%rd4], %r1;", SHARED)[0]) == {"out of bounds"}


def test_a_launch_that_never_ends_is_given_up():
    x = np.zeros(1024, np.int32)
    endless = Module.from_ptx(kernel("AGAIN: bra AGAIN;"), "sm_80")
    result = endless.launch("k", grid=3, block=64, args=[x], most_steps=1000)
    assert kinds(result) == {"too many steps"}
    assert Module.from_ptx(kernel(""), "sm_80").launch("k", grid=3, block=64, args=[x], most_steps=1000).ok


def test_divergent_barrier():
    body = "setp.lt.u32 %p1, %r1, 7; @%p1 bra AWAY; bar.sync 0; AWAY:"
    assert "divergent barrier" in kinds(run(body)[0])


def test_deadlock():
    body = "setp.lt.u32 %p1, %r1, 32; @%p1 bra FIRST; bar.sync 1; bra END; FIRST: bar.sync 2; END:"
    result, _ = run(body)
    assert kinds(result) == {"deadlock"}
    assert "barrier 1" in str(result.reports) or "barrier 2" in str(result.reports)


def test_exited_threads_are_not_waited_for():
    body = "setp.ge.u32 %p1, %r1, 32; @%p1 ret; bar.sync 0; st.global.u32 [%rd2], %r1;"
    result, x = run(body)
    assert result.ok, result.reports
    np.testing.assert_array_equal(x[:32], np.arange(32))


def test_contractible_pairs_are_static():
    """ptxas may fuse an un-suffixed product and sum, which rounds once instead of twice."""
    plain = "mul.f32 %f1, %f2, %f3; add.f32 %f4, %f1, %f2;"
    assert kinds(run(plain)[0]) == {"contractible pair"}
    assert run(plain.replace("mul.f32", "mul.rn.f32"))[0].ok


def test_a_report_says_where():
    text = kernel("\t.loc 1 42 7\n\tld.global.u32 %r3, [%rd2+4096];") + '\n.file 1 "kernel.cu"\n'
    (report,) = Module.from_ptx(text).launch("k", grid=1, block=32, args=[np.zeros(1024, np.int32)]).reports
    assert (report.kernel, report.file, report.line, report.block, report.thread) == ("k", "kernel.cu", 42, 0, 0)
    assert "kernel.cu:42" in str(report)
    assert report.ptx == "ld.global.u32 %r3, [%rd2+4096];"


# Counters.


def test_sectors_and_wavefronts():
    """32 neighbouring words are four sectors and one wavefront; 32 words 128 bytes apart 32 of each."""
    near, _ = run("ld.global.u32 %r3, [%rd2];", block=32)
    assert (near.counters.sectors, near.counters.ideal_sectors, near.counters.global_bytes_read) == (4, 4, 128)
    far, _ = run("shl.b64 %rd4, %rd3, 5; add.s64 %rd5, %rd1, %rd4; ld.global.u32 %r3, [%rd5];", block=32)
    assert (far.counters.sectors, far.counters.ideal_sectors) == (32, 4)
    shared = ".shared .align 4 .b8 smem[4096];"
    store = "mov.u32 %r3, smem; add.s32 %r4, %r3, %r2; st.shared.u32 [%r4], %r1;"
    assert run(store, shared, block=32)[0].counters.shared_wavefronts == 1
    strided = store.replace("%r3, %r2", "%r3, %r5").replace("mov.u32 %r3", "shl.b32 %r5, %r2, 5; mov.u32 %r3")
    conflict = run(strided, shared, block=32)[0].counters
    assert (conflict.shared_wavefronts, conflict.ideal_shared_wavefronts) == (32, 1)


def test_traffic_counts_a_byte_once_for_all_lanes_of_a_warp():
    """Two warps read a word each by all of their lanes, then 32 words of which every lane has its own."""
    body = "ld.global.u32 %r3, [%rd1];\nld.global.u32 %r3, [%rd2];\nst.global.u8 [%rd2], %r3;"
    same, own, stored = [each for each in run(body, block=64)[0].counters.each if each.traffic]
    assert [sum(each.traffic.values()) for each in (same, own, stored)] == [2 * 4, 2 * 128, 2 * 32]
    assert same.traffic.keys() == own.traffic.keys() == stored.traffic.keys()
    assert (same.warps, same.units, same.ideal) == (2, 2, 2)


def test_instructions_are_counted_by_opcode():
    counters = run("LOOP: add.s32 %r5, %r5, 1; setp.lt.s32 %p1, %r5, 10; @%p1 bra LOOP;", block=64)[0].counters
    assert counters.by_opcode["add.s32"] == 20  # two warps
    assert counters.instructions == sum(counters.by_opcode.values())


# What is refused.


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ({"block": 1025}, "at most 1024"),
        ({"block": (1, 1, 65)}, "at most 1024"),
        ({"grid": (1, 65536)}, "beyond"),
        ({"grid": 0}, "positive"),
        ({"shared": 200 * 1024}, "shared memory"),
    ],
)
def test_launches_that_hardware_refuses(launch, words):
    module = Module.from_ptx(kernel(""), "sm_80")
    with pytest.raises(LaunchError, match=words):
        module.launch("k", **{"grid": 1, "block": 32, "args": [np.zeros(1, np.int32)], **launch})


def test_launch_bounds_are_kept():
    text = kernel("").replace("(.param .u64 x)", "(.param .u64 x)\n.maxntid 64, 1, 1")
    with pytest.raises(LaunchError, match="at most 64 threads"):
        Module.from_ptx(text).launch("k", grid=1, block=96, args=[np.zeros(1, np.int32)])


def test_ptx_for_a_newer_device_is_refused():
    with pytest.raises(LaunchError, match="does not run on sm_75"):
        Module.from_ptx(kernel("").replace("sm_75", "sm_90"), "sm_75")
    assert set(DEVICES) >= {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"}


@pytest.mark.parametrize("line", ["frobnicate.u32 %r3, %r4;", "add.s32.sat %r3, %r4, %r5;", "ex2.approx.f32 %f1, %f2;"])
def test_unknown_instructions_are_quoted(line):
    with pytest.raises(PtxError) as error:
        run(line)
    assert line in str(error.value)

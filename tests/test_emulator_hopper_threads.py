"""What else Hopper's kernels do in the emulator: elect a lane, move registers, ask about a cluster of one block."""

import numpy as np
import pytest

from tests.emulator import LaunchError, Module, PtxError
from tests.test_emulator_hopper_mbarrier import HEAD, kinds, run


def test_one_lane_is_elected():
    out = np.full(64, -1, np.int32)
    assert run("elect.sync %r5|%p2, -1; selp.b32 %r6, 100, %r5, %p2; st.global.u32 [%rd5], %r6;", out=out).ok
    np.testing.assert_array_equal(out, np.tile([100] + [0] * 31, 2))
    some = "and.b32 %r6, %r1, 31; setp.ge.u32 %p3, %r6, 5; @!%p3 bra END; elect.sync _|%p2, 0xFFFFFFE0;\n"
    some += "selp.b32 %r6, 100, 7, %p2; st.global.u32 [%rd5], %r6; END:\n"
    out = np.full(64, -1, np.int32)
    assert run(some, out=out).ok
    np.testing.assert_array_equal(out, np.tile([-1] * 5 + [100] + [7] * 26, 2))


def test_lanes_that_do_not_come_to_an_election():
    result = run("setp.lt.u32 %p3, %r1, 5; @%p3 bra END; elect.sync _|%p2, -1; END: bar.warp.sync -1;", block=32)
    assert "divergent warp" in kinds(result)


CLUSTER = {f"%cluster_ctaid.{axis}": 0 for axis in "xyz"}
CLUSTER |= {f"%cluster_nctaid.{axis}": 1 for axis in "xyz"} | {"%cluster_ctarank": 0, "%cluster_nctarank": 1}
CLUSTER |= {f"%{name}.{axis}": f"%{same}.{axis}" for name, same in (("clusterid", "ctaid"), ("nclusterid", "nctaid"))
            for axis in "xyz"}  # fmt: skip


def test_a_block_is_its_own_cluster():
    """Each special register of clusters against what it must be for a cluster of one."""
    checks = "".join(
        f"mov.u32 %r5, {name}; mov.u32 %r6, {same}; setp.ne.u32 %p2, %r5, %r6; selp.b32 %r7, 1, %r7, %p2;\n"
        for name, same in CLUSTER.items()
    )
    text = f"{HEAD}.visible .entry k(.param .u64 out) {{ .reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<9>;\n"
    text += "ld.param.u64 %rd1, [out]; mov.u32 %r7, 0;\n" + checks
    text += "mov.u32 %r1, %clusterid.x; mad.lo.u32 %r1, %clusterid.y, 2, %r1; mad.lo.u32 %r1, %clusterid.z, 6, %r1;\n"
    text += "shl.b32 %r2, %r1, 2; cvt.u64.u32 %rd2, %r2; add.s64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r7; ret; }\n"
    out = np.full(24, -1, np.int32)
    assert Module.from_ptx(text, "sm_90").launch("k", grid=(2, 3, 4), block=1, args=[out]).ok
    np.testing.assert_array_equal(out, np.zeros(24))


def test_an_address_in_the_cluster_is_the_blocks_own():
    body = "st.shared.u32 [%r4], %r1; mapa.shared::cluster.u32 %r5, %r4, RANK; ld.shared.u32 %r6, [%r5];\n"
    body += "st.global.u32 [%rd5], %r6;"
    out = np.zeros(64, np.int32)
    assert run(body.replace("RANK", "0"), out=out).ok
    np.testing.assert_array_equal(out, np.arange(64))
    assert kinds(run(body.replace("RANK", "1"))) == {"out of bounds"}


def test_what_changes_no_value():
    body = "setmaxnreg.inc.sync.aligned.u32 232; setmaxnreg.dec.sync.aligned.u32 24; griddepcontrol.wait;\n"
    body += "griddepcontrol.launch_dependents; fence.mbarrier_init.release.cluster; fence.proxy.async.global;\n"
    body += "fence.proxy.tensormap::generic.release.gpu; prefetch.tensormap [%rd1]; st.global.u32 [%rd5], %r1;"
    out = np.zeros(64, np.int32)
    assert run(body, out=out).ok
    np.testing.assert_array_equal(out, np.arange(64))


def test_labels_of_inner_braces_are_their_own():
    """As inline assembly that is repeated has them, with branches forwards and backwards."""
    loop = "{ .reg .pred done; AGAIN: add.s32 %r5, %r5, 1; setp.ge.s32 done, %r5, LIMIT; @done bra DONE; bra AGAIN;\n"
    loop += "DONE: add.s32 %r6, %r6, %r5; }\n"
    body = "mov.u32 %r5, 0; mov.u32 %r6, 0; " + loop.replace("LIMIT", "3") + loop.replace("LIMIT", "10")
    out = np.zeros(64, np.int32)
    assert run(body + "st.global.u32 [%rd5], %r6;", out=out).ok
    np.testing.assert_array_equal(out, np.full(64, 13))


def test_a_branch_by_a_table():
    """Lanes take different ways; an index beyond the table, which the ISA leaves open, goes on."""
    body = "and.b32 %r5, %r1, 3; mov.u32 %r6, 9; TABLE: .branchtargets A,\n B, C; brx.idx %r5, TABLE; bra END;\n"
    body += (
        "A: mov.u32 %r6, 10; bra END; B: mov.u32 %r6, 11; bra END; C: mov.u32 %r6, 12;\nEND: st.global.u32 [%rd5], %r6;"
    )
    out = np.zeros(64, np.int32)
    assert run(body, out=out).ok
    np.testing.assert_array_equal(out, np.tile([10, 11, 12, 9], 16))
    with pytest.raises(PtxError, match="a branch by a table"):
        run(body.replace("%r5, TABLE;", "%r5, OTHER;"))


def test_ptx_of_one_architecture_alone():
    with pytest.raises(LaunchError, match="runs on sm_90 alone"):
        Module.from_ptx(HEAD, "sm_100")
    assert Module.from_ptx(HEAD.replace("sm_90a", "sm_90"), "sm_100").kernels == []


def test_clusters_are_refused():
    text = f"{HEAD}.visible .entry k() .reqnctapercluster 2, 1, 1 {{ ret; }}\n"
    with pytest.raises(LaunchError, match="clusters of"):
        Module.from_ptx(text, "sm_90").launch("k", grid=2, block=32, args=[])
    one = text.replace("2, 1, 1", "1, 1, 1")
    assert Module.from_ptx(one, "sm_90").launch("k", grid=2, block=32, args=[]).ok


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("clusters", "barrier.cluster.arrive.aligned;"),
        ("clusters", "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r2], %r1, [%r2];"),
        ("clusters", "ld.shared::cluster.u32 %r5, [%r2];"),
        ("sm_100", "tcgen05.wait::ld.sync.aligned;"),
        ("literal multiple of 8", "setmaxnreg.inc.sync.aligned.u32 100;"),
        ("literal multiple of 8", "setmaxnreg.dec.sync.aligned.u32 16;"),
        ("a register and a predicate", "elect.sync %r5, -1;"),
        ("unknown instruction", "fence.proxy.async.shared;"),
        ("unknown instruction", "elect.sync.aligned %r5|%p2, -1;"),
    ],
)
def test_what_is_refused_is_quoted(words, line):
    with pytest.raises(PtxError, match=words) as error:
        run(line)
    assert line in str(error.value)

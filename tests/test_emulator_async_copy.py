"""cp.async in the emulator: the right use passes; each way to get it wrong is reported."""

import numpy as np
import pytest

from tests.test_emulator_tensor_core import kinds, run

THREADS, TILES = 64, 9  # two warps; every stage of three is used three times
PLACES = """
shl.b32 %r3, %r1, 4; cvt.u64.u32 %rd3, %r3; add.s64 %rd4, %rd1, %rd3; add.s64 %rd5, %rd2, %rd3;
add.s32 %r4, %r2, %r3; xor.b32 %r5, %r3, 512; add.s32 %r6, %r2, %r5;
"""


def pipeline(
    stages=3, wait="cp.async.wait_group 1;", barrier="bar.sync 0;", commit="cp.async.commit_group;", swap=False
):
    """Each thread copies 16 bytes of each tile and passes on those that a thread of the other warp copied."""

    def copy(tile):
        if tile >= TILES:
            return commit
        return f"cp.async.cg.shared.global [%r4+{tile % stages * 1024}], [%rd4+{tile * 1024}], 16; {commit}"

    body = [PLACES, copy(0), copy(1)]
    for tile in range(TILES):
        at, place = tile % stages * 1024, tile * 1024
        body += [barrier, wait] if swap else [wait, barrier]
        body.append(f"ld.shared.v4.u32 {{%r10, %r11, %r12, %r13}}, [%r6+{at}];")
        body.append(f"st.global.v4.u32 [%rd5+{place}], {{%r10, %r11, %r12, %r13}};")
        body.append(copy(tile + 2))
    return "\n".join(body)


def piped(**how):
    """(result, whether the bits are right)"""
    seed = how.pop("seed", 0)
    x = np.random.default_rng(seed).integers(0, 2**32, (TILES, THREADS, 4), dtype=np.uint32)
    out = np.zeros_like(x)
    result = run(pipeline(**how), x, out, block=THREADS, seed=seed)
    return result, bool((out == x[:, np.arange(THREADS) ^ 32]).all())


@pytest.mark.parametrize("seed", range(6))
def test_a_pipeline(seed):
    for how in ({}, {"stages": 4}, {"wait": "cp.async.wait_group 0;"}, {"wait": "cp.async.wait_all;"}):
        result, right = piped(seed=seed, **how)
        assert result.ok, result.reports
        assert right


NOT_WAITED = "asynchronous copy not waited for"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("defect", "kind"),
    [
        ({"wait": ""}, NOT_WAITED),
        ({"wait": "cp.async.wait_group 2;"}, NOT_WAITED),
        ({"commit": ""}, NOT_WAITED),
        ({"barrier": ""}, "shared race"),
        ({"barrier": "bar.warp.sync -1;"}, "shared race"),
        ({"stages": 2}, "shared race"),  # a stage is filled while it is read
        ({"swap": True}, "shared race"),  # the barrier comes before the wait
    ],
    ids=str,
)
def test_a_wrong_pipeline(defect, kind, seed):
    result, right = piped(seed=seed, **defect)
    seen = kinds(result)
    assert seen & {kind, NOT_WAITED, "uninitialized read"}
    if kind == NOT_WAITED and seed == 0:
        assert kind in seen
        assert not right


def test_a_wait_is_for_the_thread_that_waits():
    """The other warp's copies are not waited for by this one's wait."""
    result, _ = piped(wait="setp.lt.u32 %p1, %r1, 32; @%p1 cp.async.wait_group 1;")
    assert NOT_WAITED in kinds(result)


def test_before_the_wait_there_is_the_old_content():
    body = (
        PLACES
        + """
    mov.u32 %r7, 7; st.shared.u32 [%r4], %r7; cp.async.ca.shared.global [%r4], [%rd4], 4; cp.async.commit_group;
    ld.shared.u32 %r8, [%r4]; cp.async.wait_group 0; ld.shared.u32 %r9, [%r4]; st.global.v2.u32 [%rd5], {%r8, %r9};
    """
    )
    x, out = np.full((32, 4), 9, np.uint32), np.zeros((32, 4), np.uint32)
    result = run(body, x, out)
    assert kinds(result) == {NOT_WAITED}
    np.testing.assert_array_equal(out[:, :2], np.tile([7, 9], (32, 1)))


def test_bytes_in_flight_are_not_written_either():
    copy = "cp.async.ca.shared.global [%r4], [%rd4], 4;\n"
    for second in ("st.shared.u32 [%r4], %r1;", copy):
        x = np.zeros((32, 4), np.uint32)
        assert kinds(run(PLACES + copy + second, x, x.copy())) == {NOT_WAITED}
        assert run(PLACES + copy + "cp.async.wait_all;\n" + second, x, x.copy()).ok


def test_open_copies_are_in_no_group():
    """wait_group passes over copies that were not committed; wait_all does not."""
    body = PLACES + "cp.async.ca.shared.global [%r4], [%rd4], 4; WAIT ld.shared.u32 %r8, [%r4];"
    x = np.zeros((32, 4), np.uint32)
    assert kinds(run(body.replace("WAIT", "cp.async.wait_group 0;"), x, x.copy())) == {NOT_WAITED}
    assert run(body.replace("WAIT", "cp.async.wait_all;"), x, x.copy()).ok


def test_groups_are_each_threads_own():
    """A lane that skips a copy still commits a group; one that skips the commit waits for more."""
    body = PLACES + "setp.lt.u32 %p1, %r1, 9;\n"
    body += "@%p1 cp.async.ca.shared.global [%r4], [%rd4], 4; SKIP cp.async.commit_group;\n"
    body += "cp.async.ca.shared.global [%r4+1024], [%rd4], 4; cp.async.commit_group; cp.async.wait_group 1;\n"
    body += "@%p1 ld.shared.u32 %r8, [%r4];"
    x = np.zeros((32, 4), np.uint32)
    assert run(body.replace("SKIP", ""), x, x.copy()).ok
    assert kinds(run(body.replace("SKIP", "@!%p1"), x, x.copy())) == {NOT_WAITED}


@pytest.mark.parametrize("size", [4, 8, 16])
def test_bytes_that_are_not_read_are_zero(size):
    """The third operand is the destination's size, the fourth what is read; or a predicate for reading nothing."""
    x = np.random.default_rng(size).integers(1, 256, (32, 16), dtype=np.uint8)
    store = "cp.async.wait_all; bar.warp.sync -1;\n"
    for i in range(4):
        store += f"ld.shared.u32 %r8, [%r4+{4 * i}]; st.global.u32 [%rd5+{4 * i}], %r8;\n"
    fill = PLACES + "mov.u32 %r9, -1; st.shared.v4.u32 [%r4], {%r9, %r9, %r9, %r9};\n"
    copy = f"cp.async.ca.shared::cta.global.L2::128B [%r4], [%rd4], {size}"
    lanes = np.arange(32)
    cases = (
        (f"rem.u32 %r7, %r1, {size + 1}; {copy}, %r7;\n", lanes % (size + 1)),
        (f"{copy}, 3;\n", np.full(32, 3)),
        (f"setp.lt.u32 %p1, %r1, 5; {copy}, %p1;\n", np.where(lanes < 5, 0, size)),
        (f"{copy};\n", np.full(32, size)),
    )
    for text, reading in cases:
        out = np.zeros_like(x)
        result = run(fill + text + store, x, out)
        assert result.ok, result.reports
        column = np.arange(16)
        expected = np.where(column < reading[:, None], x, np.where(column < size, 0, 255))
        np.testing.assert_array_equal(out, expected)


def test_copies_are_checked():
    copy = "cp.async.cg.shared.global [%r4], [%rd4], 16"
    x = np.zeros((32, 4), np.uint32)

    def seen(text, rows=32):
        return kinds(run(PLACES + text, x[:rows].copy(), x.copy()))

    assert seen(f"{copy};") == set()
    assert seen(f"{copy};", rows=31) == {"out of bounds"}
    assert seen(f"setp.lt.u32 %p1, %r1, 31; selp.b32 %r7, 16, 0, %p1; {copy}, %r7;", rows=31) == set()
    assert seen(f"selp.b32 %r7, 16, 1, %p1; {copy}, %r7;", rows=31) == {"out of bounds"}
    assert seen(f"{copy}, 17;") == {"bad copy"}
    assert seen(copy.replace("%rd4", "%rd4+4") + ";") == {"misaligned access"}
    assert seen(copy.replace("%r4", "%r4+8") + ";") == {"misaligned access"}
    assert seen(copy.replace("%r4", "%r4+8192") + ";") == {"out of bounds"}


def test_copies_are_counted():
    x = np.zeros((32, 4), np.uint32)
    counters = run(PLACES + "cp.async.cg.shared.global [%r4], [%rd4], 16;", x, x.copy()).counters
    assert (counters.global_bytes_read, counters.sectors, counters.ideal_sectors) == (512, 16, 16)

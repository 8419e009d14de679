"""Bulk and tensor copies in the emulator against NumPy, and each way to get them wrong."""

import itertools

import numpy as np
import pytest
import torch

from tests.emulator import LaunchError, Module, PtxError, build, tensor_map
from tests.test_emulator_hopper_mbarrier import BEGIN, FIRST, HEAD, MISUSE, REGISTERS, init, kinds, run, wait

NOT_WAITED = "asynchronous copy not waited for"
BARRIER, SIZE = 32768, 16384  # where the mbarrier is, and how much is copied at most


def expect(count):
    return f"{FIRST}mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2+{BARRIER}], {count};\n"


def load(size, to="%r2", start="%rd1", hint=""):
    opcode = f"cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes{'.L2::cache_hint' if hint else ''}"
    return f"{FIRST}{opcode} [{to}], [{start}], {size}, [%r2+{BARRIER}]{hint};\n"


def store(size, start="%r2", to="%rd2"):
    return f"{FIRST}cp.async.bulk.global.shared::cta.bulk_group [{to}], [{start}], {size};\n"


COMMIT, DONE = "cp.async.bulk.commit_group;\n", "cp.async.bulk.wait_group.read 0;\n"
BEGUN = init(BARRIER, 1) + "bar.sync 0;\n"
WAIT = wait(BARRIER, 0, "W")
FENCE = "fence.proxy.async.shared::cta;\n"
# Each of 64 threads reads 4 bytes of what another warp's thread copied.
USE = "xor.b32 %r5, %r3, 128; add.s32 %r6, %r2, %r5; ld.shared.u32 %r7, [%r6]; st.global.u32 [%rd5], %r7;\n"


def filled(rng, size):
    return rng.integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hint", ["", ", %rd9"])
def test_a_bulk_copy_into_shared_memory(seed, hint):
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    body = BEGUN + expect(256) + load(256, hint=hint) + WAIT + USE
    result = run(body, x, out, seed=seed, shared=SIZE + BARRIER)
    assert result.ok, [str(report) for report in result.reports]
    np.testing.assert_array_equal(out, x[np.arange(64) ^ 32])
    assert (result.counters.global_bytes_read, result.counters.sectors) == (256, 8 + 8)


DEFECTS = {
    "no wait": (BEGUN + expect(256) + load(256) + USE, {NOT_WAITED}),
    "the parity of the phase before": (BEGUN + expect(256) + load(256) + wait(BARRIER, 1, "W") + USE, {NOT_WAITED}),
    "too many bytes expected": (BEGUN + expect(272) + load(256) + WAIT + USE, {"deadlock"}),
    "too few": (BEGUN + expect(240) + load(256) + WAIT + USE, {"deadlock"}),
    "none": (BEGUN + expect(0) + load(256) + WAIT + USE, {NOT_WAITED}),
    "one of two copies": (
        BEGUN + expect(128) + load(128) + load(128, "%r2+128", "%rd1+128") + WAIT + USE,
        {NOT_WAITED},
    ),
    "no mbarrier": ("bar.sync 0;" + load(256), {MISUSE}),
    "nobody waits": (BEGUN + expect(256) + load(256), {NOT_WAITED}),
    "written meanwhile": (BEGUN + expect(256) + load(256) + "st.shared.u32 [%r4], %r1;" + WAIT, {NOT_WAITED}),
    "into what others read": (BEGUN + "ld.shared.u32 %r7, [%r4];" + expect(256) + load(256) + WAIT, {"shared race"}),
    "onto the mbarrier": (BEGUN + expect(256) + load(256, f"%r2+{BARRIER - 128}") + WAIT, {MISUSE}),
    "size": (BEGUN + expect(24) + load(24) + WAIT, {"misaligned access"}),
    "place": (BEGUN + expect(256) + load(256, "%r2+8") + WAIT, {"misaligned access"}),
    "source": (BEGUN + expect(128) + load(128, start="%rd1+8") + WAIT, {"misaligned access"}),
    "beyond shared memory": (BEGUN + expect(256) + load(256, f"%r2+{BARRIER + SIZE}") + WAIT, {"out of bounds"}),
    "beyond the array": (BEGUN + expect(256) + load(256, start="%rd1+16") + WAIT, {"out of bounds"}),
    "destroyed meanwhile": (
        BEGUN + expect(256) + load(256) + f"{FIRST}mbarrier.inval.shared::cta.b64 [%r2+{BARRIER}];",
        {MISUSE},
    ),
}


@pytest.mark.parametrize("what", DEFECTS)
def test_a_wrong_bulk_copy_into_shared_memory(what):
    body, expected = DEFECTS[what]
    for seed in range(3):
        seen = kinds(run(body, np.arange(64, dtype=np.int32), np.zeros(64, np.int32), seed=seed, shared=SIZE + BARRIER))
        assert seen & expected, seen


def test_before_the_wait_there_is_the_old_content():
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    body = "st.shared.u32 [%r4], 7;" + BEGUN + expect(256) + load(256) + USE + WAIT
    result = run(body, x, out, shared=SIZE + BARRIER)
    assert NOT_WAITED in kinds(result)
    np.testing.assert_array_equal(out[:32], np.full(32, 7))  # the other warp reads after this one's wait


def test_the_order_of_bytes_and_arrivals_is_free():
    """Bytes may arrive before they are expected, as long as the phase waits for an arrival."""
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    result = run(BEGUN + load(256) + expect(256) + WAIT + USE, x, out, shared=SIZE + BARRIER)
    assert result.ok, result.reports


def test_a_wait_is_for_one_mbarrier():
    """What another's transactions brought is not ordered by it, even where it has arrived."""
    other = BARRIER + 64
    begin = init(other, 1) + BEGUN + expect(256) + load(256)
    begin += f"{FIRST}mbarrier.arrive.shared::cta.b64 _, [%r2+{other}];\nsetp.ge.u32 %p2, %r1, 32; @%p2 bra SECOND;\n"
    begin += WAIT + "bra BOTH; SECOND: WAIT BOTH: " + USE
    for seed in range(4):
        x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
        wrong = run(begin.replace("WAIT", wait(other, 0, "V")), x, out, seed=seed, shared=SIZE + BARRIER)
        assert kinds(wrong) & {NOT_WAITED, "shared race"}
        right = run(begin.replace("WAIT", wait(BARRIER, 0, "V")), x, out, seed=seed, shared=SIZE + BARRIER)
        assert right.ok, right.reports


# Out of shared memory.

WRITE = "st.shared.u32 [%r4], %r1;\n"
RIGHT = {
    "fence, then barrier": WRITE + FENCE + "bar.sync 0;\n" + store(256) + COMMIT + DONE,
    "barrier, then fence": WRITE + "bar.sync 0;\n" + FENCE + store(256) + COMMIT + DONE,
    "a fence of all of shared memory": WRITE + "fence.proxy.async;\nbar.sync 0;\n" + store(256) + COMMIT + DONE,
    "without .read": WRITE + FENCE + "bar.sync 0;\n" + store(256) + COMMIT + DONE.replace(".read", ""),
    "then written again": WRITE + FENCE + "bar.sync 0;\n" + store(256) + COMMIT + DONE + "bar.sync 0;\n" + WRITE,
    "two groups": WRITE + FENCE + "bar.sync 0;\n" + store(128) + COMMIT + store(128, "%r2+128", "%rd2+128")
    + COMMIT + DONE.replace("0", "1") + "bar.sync 0; setp.lt.u32 %p3, %r1, 32; @%p3 " + WRITE + DONE,
}  # fmt: skip


@pytest.mark.parametrize("how", RIGHT)
def test_a_bulk_copy_out_of_shared_memory(how):
    for seed in range(3):
        out = np.zeros(64, np.int32)
        result = run(RIGHT[how], None, out, seed=seed)
        assert result.ok, [str(report) for report in result.reports]
        np.testing.assert_array_equal(out, np.arange(64))
        assert result.counters.global_bytes_written == 256


UNFENCED = "missing proxy fence"
WRONG = {
    "no fence": (WRITE + "bar.sync 0;\n" + store(256) + COMMIT + DONE, {UNFENCED}),
    "a fence before the store": (FENCE + WRITE + "bar.sync 0;\n" + store(256) + COMMIT + DONE, {UNFENCED}),
    "a fence of another memory": (RIGHT["fence, then barrier"].replace(
        "async.shared::cta;", "async.global;"), {UNFENCED}),
    "one thread's fence before the barrier": (
        WRITE + FIRST + FENCE + "bar.sync 0;\n" + store(256) + COMMIT + DONE, {UNFENCED}),
    "no barrier": (WRITE + FENCE + store(256) + COMMIT + DONE, {"shared race", "uninitialized read"}),
    "no wait": (WRITE + FENCE + "bar.sync 0;\n" + store(256) + COMMIT, {NOT_WAITED}),
    "no group": (WRITE + FENCE + "bar.sync 0;\n" + store(256) + DONE, {NOT_WAITED}),
    "a group too few": (RIGHT["two groups"].replace("read 1", "read 2"), {NOT_WAITED}),
    "another thread's wait": (
        RIGHT["fence, then barrier"].replace(DONE, f"@!%p1 {DONE}"), {NOT_WAITED}),
    "written again with no wait": (
        WRITE + FENCE + "bar.sync 0;\n" + store(256) + COMMIT + "bar.sync 0;\n" + WRITE + DONE, {NOT_WAITED}),
    "written again with no barrier": (
        WRITE + FENCE + "bar.sync 0;\n" + store(256) + COMMIT + DONE + WRITE, {NOT_WAITED, "shared race"}),
    "size": (WRITE + FENCE + "bar.sync 0;\n" + store(100) + COMMIT + DONE, {"misaligned access"}),
    "beyond the array": (WRITE + FENCE + "bar.sync 0;\n" + store(256, to="%rd2+16") + COMMIT + DONE, {"out of bounds"}),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_bulk_copy_out_of_shared_memory(what):
    body, expected = WRONG[what]
    for seed in range(3):
        seen = kinds(run(body, None, np.zeros(64, np.int32), seed=seed))
        assert seen & expected, seen


# Tensor copies. x holds the array, out what shared memory holds after the tile has come.

TILE = f"""
{HEAD}.visible .entry k(.param .align 64 .b8 map[128], .param .u64 x, .param .u64 out) {{
{REGISTERS} .shared .align 1024 .b8 smem[{BARRIER + 64}];
{BEGIN} mov.b64 %rd10, map; cvta.param.u64 %rd11, %rd10; mul.wide.u32 %rd12, %r1, 16; shl.b32 %r9, %r1, 4;
add.s64 %rd13, %rd2, %rd12; add.s64 %rd14, %rd1, %rd12; add.s32 %r10, %r2, %r9;
BODY
ret; }}
"""
MOVE = "LOOP: setp.ge.u32 %p2, %r9, {size}; @%p2 bra OUT; {each}\n"
MOVE += "add.s32 %r9, %r9, 1024; add.s32 %r10, %r10, 1024;\n"
MOVE += "add.s64 %rd13, %rd13, 1024; add.s64 %rd14, %rd14, 1024; bra LOOP; OUT:\n"
VALUES = "{%r11, %r12, %r13, %r14}"


def moves(size, load, store):
    return MOVE.format(size=size, each=f"{load}.v4.u32 {VALUES}, {store[0]}; {store[1]}, {VALUES};")


def tile_load(rank, coordinates, to="%r2", opcode="shared::cta.global"):
    at = ", ".join(str(each) for each in reversed(coordinates))
    return (
        f"{FIRST}cp.async.bulk.tensor.{rank}d.{opcode}.mbarrier::complete_tx::bytes "
        f"[{to}], [%rd11, {{{at}}}], [%r2+{BARRIER}];\n"
    )


def tile_store(rank, coordinates, start="%r2"):
    at = ", ".join(str(each) for each in reversed(coordinates))
    return f"{FIRST}cp.async.bulk.tensor.{rank}d.global.shared::cta.bulk_group [%rd11, {{{at}}}], [{start}];\n"


def launch_tile(body, described, x, out, seed=0):
    module = Module.from_ptx(TILE.replace("BODY", body), "sm_90")
    return module.launch("k", grid=1, block=64, args=[described, x, out], seed=seed)


def tile_of(array, box, at):
    """The box at these coordinates, zero outside the array."""
    tile = np.zeros(box, array.dtype)
    for place in itertools.product(*map(range, box)):
        where = tuple(i + start for i, start in zip(place, at, strict=True))
        if all(0 <= i < size for i, size in zip(where, array.shape, strict=True)):
            tile[place] = array[where]
    return tile


def in_shared(tile, swizzle):
    """Its bytes as they lie in shared memory, which begins at a multiple of 1024.

    With a swizzle of n chunks of 16 bytes, the chunks of a row of n are exchanged by the number, modulo n, of the line
    of 128 bytes that they lie in: CUDA's Programming Guide, "Swizzle Modes".
    """
    data = np.ascontiguousarray(tile).view(np.uint8).reshape(-1)
    if swizzle is None:
        return data
    chunks = {"32B": 2, "64B": 4, "128B": 8}[swizzle]
    placed = np.zeros_like(data).reshape(-1, 16)
    for number, chunk in enumerate(data.reshape(-1, 16)):
        line = number * 16 // 128
        row, column = number // chunks, number % chunks
        placed[row * chunks + (column ^ line % chunks)] = chunk
    return placed.reshape(-1)


TILES = [
    # array, its type, box, swizzle, places
    ((300,), np.uint8, (64,), None, [(0,), (37,), (-5,), (280,), (400,)]),
    ((40, 64), np.uint8, (8, 32), None, [(0, 0), (36, 48), (-3, -7), (10, 13)]),
    ((40, 64), np.uint8, (16, 32), "32B", [(0, 0), (36, 48), (-3, -7), (1, 32)]),
    ((40, 192), np.int8, (16, 64), "64B", [(0, 64), (36, 150), (-3, -7)]),
    ((40, 192), np.int8, (24, 128), "128B", [(8, 64), (36, 150), (-3, -7)]),
    ((33, 48), np.int32, (16, 32), "128B", [(0, 0), (30, 20), (-3, -7)]),
    ((33, 48), np.float16, (16, 16), "32B", [(0, 0), (30, 40), (-3, -7)]),
    ((9, 10, 64), np.uint8, (2, 3, 32), "32B", [(0, 0, 0), (8, 9, 40), (-1, -1, -1)]),
    ((3, 9, 10, 16), np.int32, (2, 2, 3, 16), "64B", [(0, 0, 0, 0), (2, 8, 9, 10), (-1, 5, -1, -1)]),
    ((2, 3, 4, 5, 32), np.uint8, (2, 2, 3, 2, 16), None, [(0, 0, 0, 0, 0), (1, 2, 3, 4, 20), (-1, -1, 1, -1, -1)]),
]


@pytest.mark.parametrize("case", TILES, ids=str)
def test_tiles(case):
    shape, kind, box, swizzle, places = case
    rng = np.random.default_rng(len(shape))
    array = filled(rng, (*shape[:-1], shape[-1] * np.dtype(kind).itemsize)).view(kind)
    size = int(np.prod(box)) * array.itemsize
    rank = len(box)
    for at in places:
        described = tensor_map(array, box, swizzle)
        out = np.zeros(size, np.uint8)
        read = moves(size, "ld.shared", ("[%r10]", "st.global.v4.u32 [%rd13]"))
        for opcode in ("shared::cta.global", "shared::cluster.global.tile"):
            body = BEGUN + expect(size) + tile_load(rank, at, opcode=opcode) + WAIT + read
            result = launch_tile(body, described, array, out)
            assert result.ok, [str(report) for report in result.reports]
            np.testing.assert_array_equal(out, in_shared(tile_of(array, box, at), swizzle))
        tile = filled(rng, (*box[:-1], box[-1] * array.itemsize)).view(kind)
        write = moves(size, "ld.global", ("[%rd14]", "st.shared.v4.u32 [%r10]"))
        body = write + FENCE + "bar.sync 0;\n" + tile_store(rank, at) + COMMIT + DONE
        before = array.copy()
        result = launch_tile(body, described, in_shared(tile, swizzle), out)
        assert result.ok, [str(report) for report in result.reports]
        for place in itertools.product(*map(range, box)):
            where = tuple(i + start for i, start in zip(place, at, strict=True))
            if all(0 <= i < length for i, length in zip(where, shape, strict=True)):
                before[where] = tile[place]
        assert array.tobytes() == before.tobytes()


def test_an_array_in_a_wider_one():
    """Rows of 16 bytes that hold 10: what is beyond reads as zero, and is not written."""
    array = filled(np.random.default_rng(0), (8, 16))
    described = tensor_map(array, (8, 16), shape=(7, 10))
    out = np.zeros(128, np.uint8)
    body = BEGUN + expect(128) + tile_load(2, (0, 0)) + WAIT
    result = launch_tile(body + moves(128, "ld.shared", ("[%r10]", "st.global.v4.u32 [%rd13]")), described, array, out)
    assert result.ok, result.reports
    inside = np.zeros((8, 16), bool)
    inside[:7, :10] = True
    np.testing.assert_array_equal(out.reshape(8, 16), np.where(inside, array, 0))
    tile, before = filled(np.random.default_rng(1), (8, 16)), array.copy()
    write = moves(128, "ld.global", ("[%rd14]", "st.shared.v4.u32 [%r10]"))
    result = launch_tile(
        write + FENCE + "bar.sync 0;\n" + tile_store(2, (0, 0)) + COMMIT + DONE, described, tile.reshape(-1), out
    )
    assert result.ok, result.reports
    np.testing.assert_array_equal(array, np.where(inside, tile, before))


def test_wrong_tensor_copies():
    array = filled(np.random.default_rng(0), (64, 64))
    described, out = tensor_map(array, (8, 64), "64B"), np.zeros(512, np.uint8)

    def seen(body, argument=described):
        return kinds(launch_tile(body, argument, array, out))

    assert seen(BEGUN + expect(512) + tile_load(2, (0, 0)) + WAIT) == set()
    assert seen(BEGUN + expect(512) + tile_load(2, (64, 0)) + WAIT) == set()  # zeros, and as many bytes
    assert seen(BEGUN + expect(256) + tile_load(2, (60, 0)) + WAIT) == {"deadlock"}
    assert seen(BEGUN + expect(512) + tile_load(2, (0, 0), "%r2+64") + WAIT) >= {"misaligned access"}
    assert seen(BEGUN + expect(512) + tile_load(2, (0, 0), f"%r2+{BARRIER}") + WAIT) >= {"out of bounds"}
    assert seen(BEGUN + expect(512) + tile_load(3, (0, 0, 0)) + WAIT) >= {"bad tensor map"}
    assert seen(BEGUN + expect(512) + tile_load(2, (0, 0)) + WAIT, bytes(128)) >= {"bad tensor map"}
    moved = BEGUN + "add.s64 %rd11, %rd11, 16;\n" + expect(512) + tile_load(2, (0, 0)) + WAIT
    assert seen(moved) >= {"misaligned access"}
    assert seen(tile_store(2, (0, 0)) + COMMIT + DONE) == {"uninitialized read"}
    assert seen("st.shared.u32 [%r4], %r1; bar.sync 0;" + tile_store(2, (60, 0)) + COMMIT + DONE) == {UNFENCED}


def test_a_map_may_be_in_global_memory():
    array, out = filled(np.random.default_rng(0), (64, 64)), np.zeros(512, np.uint8)
    copy = (
        "ld.param.v4.u32 {%r11, %r12, %r13, %r14}, [map+AT]; @%p1 st.global.v4.u32 [%rd1+AT], {%r11, %r12, %r13, %r14};"
    )
    body = "".join(copy.replace("AT", str(at)) for at in range(0, 128, 16)) + BEGUN
    body += (
        "mov.u64 %rd11, %rd1; prefetch.tensormap [%rd11]; fence.proxy.tensormap::generic.acquire.gpu [%rd11], 128;\n"
    )
    body += expect(512) + tile_load(2, (3, 0)) + WAIT + moves(512, "ld.shared", ("[%r10]", "st.global.v4.u32 [%rd13]"))
    result = launch_tile(body, tensor_map(array, (8, 64)), np.zeros(128, np.uint8), out)
    assert result.ok, [str(report) for report in result.reports]
    np.testing.assert_array_equal(out.reshape(8, 64), array[3:11])


ARRAY = np.zeros((64, 64), np.int8)


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("1 to 5 dimensions", lambda: tensor_map(np.zeros((1,) * 5 + (16,), np.int8), (1,) * 5 + (16,))),
        ("2 sizes from 1 to 256", lambda: tensor_map(ARRAY, (16,))),
        ("2 sizes from 1 to 256", lambda: tensor_map(ARRAY, (257, 16))),
        ("2 sizes from 1 to 256", lambda: tensor_map(ARRAY, (0, 16))),
        ("multiples of 16", lambda: tensor_map(ARRAY, (16, 24))),
        ("multiples of 16", lambda: tensor_map(ARRAY[:, :24], (16, 16))),
        ("multiples of 16", lambda: tensor_map(np.zeros((8, 24), np.int8), (8, 16))),
        ("is not within", lambda: tensor_map(ARRAY, (16, 16), shape=(64, 65))),
        ("swizzle '96B'", lambda: tensor_map(ARRAY, (16, 32), "96B")),
        ("with a swizzle of 64B", lambda: tensor_map(ARRAY, (16, 32), "64B")),
        ("element strides", lambda: tensor_map(ARRAY, (16, 32), element_strides=(1, 2))),
    ],
)
def test_maps_that_are_refused(words, make):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("clusters", tile_load(2, (0, 0)).replace("bytes [", "bytes.multicast::cluster [")),
        (".tile alone", tile_load(2, (0, 0)).replace("global.", "global.im2col.")),
        ("2 coordinates", tile_load(2, (0, 0)).replace("{0, 0}", "{0}")),
        ("2 coordinates", tile_load(2, (0, 0)).replace(", {0, 0}", "")),
        ("operands expected", load(16).replace(", 16,", ",")),
        ("unknown", "cp.async.bulk.tensor.6d.global.shared::cta.bulk_group [%rd11, {0, 0}], [%r2];"),
        ("unknown", "cp.async.bulk.prefetch.L2.global [%rd1], 16;"),
        ("unknown", "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.s32 [%rd2], [%r2], 16;"),
        ("clusters", "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r2], [%r2], 16, [%r2];"),
    ],
)
def test_copies_that_are_refused(words, line):
    with pytest.raises(PtxError, match=words) as error:
        launch_tile(line, tensor_map(ARRAY, (16, 32)), ARRAY, ARRAY)
    assert line.strip() in str(error.value)


def test_a_map_of_a_torch_tensor():
    x = torch.arange(64 * 32, dtype=torch.int32).reshape(64, 32)
    out = np.zeros(1024, np.uint8)
    read = moves(1024, "ld.shared", ("[%r10]", "st.global.v4.u32 [%rd13]"))
    body = BEGUN + expect(1024) + tile_load(2, (5, 0)) + WAIT + read
    result = launch_tile(body, tensor_map(x, (8, 32)), x, out)
    assert result.ok, result.reports
    np.testing.assert_array_equal(out.view(np.int32), x[5:13].reshape(-1).numpy())


def test_a_map_is_128_bytes_for_a_parameter_of_128():
    with pytest.raises(LaunchError, match="has 8 bytes, got 128"):
        run("", tensor_map(ARRAY, (16, 32)))
    assert build.machine().allocations() == 0, "a launch that was refused left its array behind"

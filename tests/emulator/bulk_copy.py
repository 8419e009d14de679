"""cp.async.bulk and cp.async.bulk.tensor: copies in bulk that one thread starts, and tiles by a tensor map."""

import re

from .async_copy import literal_groups
from .memory_access import declare_address
from .ptx import Address

TO_SHARED = r"\.shared(?:::(?:cta|cluster))?\.global"
TO_GLOBAL = r"\.global\.shared(?:::cta)?"
COMPLETES = r"\.mbarrier::complete_tx::bytes"
HINT = r"(?P<hint>\.L2::cache_hint)?"


def operands(b, match, count):
    """Without the policy of .L2::cache_hint: it says how long to cache, which is time, not values."""
    given = list(b.instruction.operands)
    if match["hint"] and len(given) == count + 1:
        given.pop()
    if len(given) != count:
        raise b.error(f"{count} operands expected, got {len(given)}")
    return given


def lower_load(b, match):
    to, start, size, mbarrier = operands(b, match, 4)
    declare_address(b, to, "to_")
    declare_address(b, start)
    b.source("size", size, "u32")
    declare_address(b, mbarrier, "mbarrier_")
    return b.lanes("cp.async.bulk load", "load_bulk(w, lane, to_address, address, size, mbarrier_address);")


def lower_store(b, match):
    to, start, size = operands(b, match, 3)
    declare_address(b, to, "to_")
    declare_address(b, start)
    b.source("size", size, "u32")
    return b.lanes("cp.async.bulk store", "store_bulk(w, lane, to_address, address, size);")


def tile_address(b, match, operand):
    """Declares `map_address` and `at`, the coordinates."""
    rank = int(match["rank"])
    if not isinstance(operand, Address) or len(operand.coordinates) != rank:
        raise b.error(f"a tensor map and {rank} coordinates were expected")
    declare_address(b, operand, "map_")
    for i, coordinate in enumerate(operand.coordinates):
        b.source(f"x{i}", coordinate, "s32")
    return f"const int32_t at[] = {{{', '.join(f'x{i}' for i in range(rank))}}};"


def lower_tile_load(b, match):
    to, tile, mbarrier = operands(b, match, 3)
    declare_address(b, to, "to_")
    coordinates = tile_address(b, match, tile)
    declare_address(b, mbarrier, "mbarrier_")
    body = f"{coordinates} load_tile(w, lane, to_address, map_address, {match['rank']}, at, mbarrier_address);"
    return b.lanes(f"cp.async.bulk.tensor.{match['rank']}d load", body)


def lower_tile_store(b, match):
    tile, start = operands(b, match, 2)
    coordinates = tile_address(b, match, tile)
    declare_address(b, start)
    body = f"{coordinates} store_tile(w, lane, map_address, {match['rank']}, at, address);"
    return b.lanes(f"cp.async.bulk.tensor.{match['rank']}d store", body)


def lower_commit(b, match):
    b.operands(0)
    return b.function("cp.async.bulk.commit_group", "commit_bulk_stores(w);")


def lower_wait(b, match):
    """With .read it is enough that the sources have been read: here both are one."""
    return b.function("cp.async.bulk.wait_group", f"wait_for_bulk_stores(w, {literal_groups(b)});")


def refuse(reason):
    def lower(b, match):
        raise b.error(reason)

    return lower


TABLE = [
    (re.compile(r"cp\.async\.bulk\.[\w.:]*\.multicast::cluster[\w.:]*"), refuse("clusters of blocks are not emulated")),
    (re.compile(r"cp\.async\.bulk\.[\w.:]*\.im2col[\w.:]*"), refuse("of tensor copies .tile alone is emulated")),
    (re.compile(rf"cp\.async\.bulk{TO_SHARED}{COMPLETES}{HINT}"), lower_load),
    (re.compile(rf"cp\.async\.bulk{TO_GLOBAL}\.bulk_group{HINT}"), lower_store),
    (re.compile(rf"cp\.async\.bulk\.tensor\.(?P<rank>[1-5])d{TO_SHARED}(?:\.tile)?{COMPLETES}{HINT}"), lower_tile_load),
    (
        re.compile(rf"cp\.async\.bulk\.tensor\.(?P<rank>[1-5])d{TO_GLOBAL}(?:\.tile)?\.bulk_group{HINT}"),
        lower_tile_store,
    ),
    (re.compile(r"cp\.async\.bulk\.commit_group"), lower_commit),
    (re.compile(r"cp\.async\.bulk\.wait_group(?:\.read)?"), lower_wait),
]

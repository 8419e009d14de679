"""What else came with sm_90: a lane elected, registers moved between warps, fences between proxies, clusters of one."""

import re

from .bulk_copy import refuse
from .control import lower_nothing, with_members
from .memory_access import declare_address
from .ptx import Immediate, Pair, Register


def lower_elect(b, match):
    """The lowest of the lanes: PTX leaves open which it is, but for that it is always the same."""
    chosen, members = b.operands(2)
    if not isinstance(chosen, Pair):
        raise b.error("a register and a predicate were expected")
    if chosen.first != Register("_"):
        b.destination("leader", chosen.first, "b32")
    b.destination("elected", chosen.second, "pred")
    b.source("m", members, "b32")
    b.before.append("uint32_t all_members = 0;")
    lowered = b.together(
        "elect.sync",
        "all_members = m;",
        "const uint32_t leader = all_members == 0 ? 0 : __builtin_ctz(all_members);",
        "const bool elected = lane == static_cast<int>(leader);",
    )
    return with_members(b, lowered, members)


def lower_registers(b, match):
    """How many registers a warp has left is ptxas's matter; here it has all that it names."""
    (count,) = b.operands(1)
    if not isinstance(count, Immediate) or not 24 <= count.value <= 256 or count.value % 8:
        raise b.error("a literal multiple of 8 from 24 to 256 was expected")
    return b.function("nothing", "")


def lower_proxy_fence(b, match):
    b.operands(0)
    if match["space"] == ".global":
        return b.function("nothing", "")
    return b.function("fence.proxy.async", "fence_proxy(w);")


def lower_map(b, match):
    to, address, rank = b.operands(3)
    kind = match["t"]
    b.destination("d", to, kind)
    b.source("a", address, kind)
    b.source("rank", rank, "u32")
    return b.lanes(f"mapa.{kind}", "const auto d = a + map_to_block(w, lane, rank);")


def lower_prefetch(b, match):
    """The map's own check comes with its use."""
    declare_address(b, *b.operands(1))
    return b.function("nothing", "")


TABLE = [
    (re.compile(r"elect\.sync"), lower_elect),
    (re.compile(r"setmaxnreg\.(?:inc|dec)\.sync\.aligned\.u32"), lower_registers),
    (re.compile(r"fence\.proxy\.async(?P<space>\.global|\.shared::(?:cta|cluster))?"), lower_proxy_fence),
    (re.compile(r"fence\.mbarrier_init\.release\.cluster"), lower_nothing),
    # Tensor maps are read when they are used: what a kernel would change in one is seen at once.
    (re.compile(r"fence\.proxy\.tensormap::generic\.(?:acquire|release)\.(?:cta|cluster|gpu|sys)"), lower_nothing),
    (re.compile(r"prefetch(?:\.param)?\.tensormap"), lower_prefetch),
    (re.compile(r"griddepcontrol\.(?:wait|launch_dependents)"), lower_nothing),
    (re.compile(r"mapa(?:\.shared::cluster)?\.(?P<t>u32|u64)"), lower_map),
    (
        re.compile(r"barrier\.cluster\.[\w.]+|[\w.]*\.shared::cluster\.[\w.:]+|tcgen05\.[\w.:]+"),
        refuse("clusters of blocks and the instructions of sm_100 are not emulated"),
    ),
]

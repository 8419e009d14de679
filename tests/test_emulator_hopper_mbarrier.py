"""mbarriers in the emulator: what they order, what they count, and each way to get them wrong.

The kernels are PTX by hand, so that a defect is exactly what the test says it is.
"""

import numpy as np
import pytest

from tests.emulator import Module, PtxError

HEAD = ".version 8.7\n.target sm_90a\n.address_size 64\n"
REGISTERS = ".reg .pred %p<9>; .reg .b32 %r<33>; .reg .b64 %rd<33>; .reg .b64 %s<9>;\n"
# %r1: the thread's number, %r2: the address of shared memory, %rd1: x, %rd2: out, %rd4: where x[thread] is, %rd5: out's
BEGIN = """
ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, smem;
mul.wide.u32 %rd3, %r1, 4; add.s64 %rd4, %rd1, %rd3; add.s64 %rd5, %rd2, %rd3;
setp.eq.u32 %p1, %r1, 0; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3;
"""
FIRST = "@%p1 "  # thread 0 alone


def run(body, x=None, out=None, *more, block=64, seed=0, shared=8192, parameters="", registers=""):
    x = np.zeros(1024, np.int32) if x is None else x
    out = np.zeros(1024, np.int32) if out is None else out
    entry = f".visible .entry k(.param .u64 x, .param .u64 out{parameters})"
    memory = f".shared .align 1024 .b8 smem[{shared}];"
    text = f"{HEAD}{entry}\n{{\n{REGISTERS}{registers}{memory}\n{BEGIN}{body}\nret;\n}}\n"
    module = Module.from_ptx(text, "sm_90")
    return module.launch("k", grid=1, block=block, args=[x, out, *more], seed=seed)


def kinds(result):
    return {report.kind for report in result.reports}


def wait(place, parity, label, what="try_wait.parity", predicate="%p7"):
    """Until the phase is complete. place: bytes from the beginning of shared memory, or an address."""
    address = f"%r2+{place}" if isinstance(place, int) else place
    return f"{label}: mbarrier.{what}.shared::cta.b64 {predicate}, [{address}], {parity}; @!{predicate} bra {label};\n"


def init(place, count):
    return f"{FIRST}mbarrier.init.shared::cta.b64 [%r2+{place}], {count};\n"


def arrive(place, more=""):
    return f"mbarrier.arrive.shared::cta.b64 _, [%r2+{place}]{more};\n"


MISUSE = "mbarrier misuse"

# Each thread stores its number and reads the other warp's.
EXCHANGE = """
INIT bar.sync 0;
st.shared.u32 [%r4], %r1;
ARRIVE
WAIT
xor.b32 %r5, %r3, 128; add.s32 %r6, %r2, %r5; ld.shared.u32 %r7, [%r6]; st.global.u32 [%rd5], %r7;
"""


def exchange(*, begin=None, arrival=None, waiting=None, block=64, seed=0):
    text = EXCHANGE.replace("INIT", init(1024, block) if begin is None else begin)
    text = text.replace("ARRIVE", arrive(1024) if arrival is None else arrival)
    out = np.full(64, -1, np.int32)
    return run(text.replace("WAIT", wait(1024, 0, "W") if waiting is None else waiting), out=out, seed=seed), out


STATE = "mbarrier.arrive.shared::cta.b64 %s1, [%r2+1024];\n"
RIGHT = {
    "parity": {},
    "test_wait": {"waiting": wait(1024, 0, "W", "test_wait.parity")},
    "state": {"arrival": STATE, "waiting": wait(1024, "%s1", "W", "try_wait")},
    "state, test_wait": {"arrival": STATE, "waiting": wait(1024, "%s1", "W", "test_wait")},
    "scopes": {
        "arrival": "mbarrier.arrive.release.cta.shared::cta.b64 _, [%r2+1024];\n",
        "waiting": wait(1024, 0, "W", "try_wait.parity.acquire.cta"),
    },
    "a time to sleep": {"waiting": wait(1024, "0, 1000", "W")},
    "one arrival for each warp": {
        "begin": init(1024, 2),
        "arrival": f"bar.warp.sync -1; and.b32 %r8, %r1, 31; setp.eq.u32 %p2, %r8, 0; @%p2 {arrive(1024)}",
    },
    "counts": {
        "begin": init(1024, 10),
        "arrival": f"bar.warp.sync -1; and.b32 %r8, %r1, 31; setp.eq.u32 %p2, %r8, 0; @%p2 {arrive(1024, ', 5')}",
    },
    "bytes by hand": {
        "begin": init(1024, 64) + f"{FIRST}mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r2+1024], 100;\n",
        "arrival": arrive(1024) + "setp.eq.u32 %p2, %r1, 63;\n"
        "@%p2 mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r2+1024], 100;\n",
    },
    "generic addresses": {
        "arrival": "cvt.u64.u32 %rd6, %r2; cvta.shared.u64 %rd7, %rd6; mbarrier.arrive.b64 _, [%rd7+1024];\n",
        "waiting": "W: mbarrier.try_wait.parity.b64 %p7, [%rd7+1024], 0; @!%p7 bra W;\n",
    },
    "without completing": {
        "begin": init(1024, 65),
        "arrival": f"{FIRST}mbarrier.arrive.noComplete.shared::cta.b64 %s1, [%r2+1024], 1;\n" + arrive(1024),
    },
}


@pytest.mark.parametrize("how", RIGHT)
@pytest.mark.parametrize("seed", range(4))
def test_an_mbarrier_orders_threads(how, seed):
    result, out = exchange(seed=seed, **RIGHT[how])
    assert result.ok, [str(report) for report in result.reports]
    np.testing.assert_array_equal(out, np.arange(64) ^ 32)


RACES = {"shared race", "uninitialized read"}
WRONG = {
    "no wait": ({"waiting": ""}, RACES),
    "the other parity, that of the phase before": ({"waiting": wait(1024, 1, "W")}, RACES),
    "a look without waiting": ({"waiting": "mbarrier.test_wait.parity.shared::cta.b64 %p7, [%r2+1024], 0;"}, RACES),
    "arrives before it stores": ({"arrival": "", "begin": init(1024, 64) + "bar.sync 0;" + arrive(1024)}, RACES),
    "relaxed arrival": ({"arrival": "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r2+1024];\n"}, RACES),
    "relaxed wait": ({"waiting": wait(1024, 0, "W", "try_wait.parity.relaxed.cta")}, RACES),
    "nobody arrives": ({"arrival": ""}, {"deadlock"}),
    "one arrival too few": ({"begin": init(1024, 65)}, {"deadlock"}),
    "one arrival too many": ({"begin": init(1024, 63)}, RACES),  # the last is for the next phase
    "two counts where one is left": (
        {"begin": init(1024, 127), "arrival": arrive(1024, ", 2"), "waiting": arrive(1024, ", 2")},
        {MISUSE},
    ),
    "one arrival for lanes that have not met": (
        {
            "begin": init(1024, 2),
            "arrival": f"and.b32 %r8, %r1, 31; setp.eq.u32 %p2, %r8, 0; @%p2 {arrive(1024)}",
        },
        RACES,
    ),
    "bytes that never come": (
        {"arrival": f"{FIRST}mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2+1024], 16;\n@!%p1 {arrive(1024)}"},
        {"deadlock"},
    ),
    "never initialized": ({"begin": ""}, {MISUSE}),
    "initialized elsewhere": ({"begin": init(1032, 64)}, {MISUSE}),
    "initialized twice": ({"begin": init(1024, 64) * 2}, {MISUSE}),
    "a count of none": ({"begin": init(1024, 0)}, {MISUSE}),
    "destroyed": ({"begin": init(1024, 64) + f"{FIRST}mbarrier.inval.shared::cta.b64 [%r2+1024];"}, {MISUSE}),
    "its bytes are written": ({"arrival": f"{FIRST}st.shared.u32 [%r2+1028], 7; {arrive(1024)}"}, {MISUSE}),
    "its bytes are read": ({"arrival": f"{FIRST}ld.shared.u32 %r9, [%r2+1028]; {arrive(1024)}"}, {MISUSE}),
    "misaligned": ({"begin": init(1028, 64)}, {"misaligned access"}),
    "out of bounds": ({"begin": init(8192, 64)}, {"out of bounds"}),
    "a phase that is no parity": ({"waiting": wait(1024, 2, "W")}, {MISUSE}),
    "a state that is not its own": (
        {"arrival": STATE, "waiting": "add.s64 %s1, %s1, 7;" + wait(1024, "%s1", "W", "try_wait")},
        {MISUSE},
    ),
    "completes with .noComplete": (
        {"arrival": "mbarrier.arrive.noComplete.shared::cta.b64 %s1, [%r2+1024], 1;\n"},
        {MISUSE},
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_an_mbarrier_used_wrongly(how):
    defect, expected = WRONG[how]
    for seed in range(3):
        seen = kinds(exchange(seed=seed, **defect)[0])
        assert seen & expected, seen


def test_a_deadlock_says_what_is_missing():
    result, _ = exchange(begin=init(1024, 70))
    (words,) = {report.words for report in result.reports}
    assert "phase 0 for 6 of 70 arrivals and 0 bytes" in words


def test_initialization_must_be_ordered_before_use():
    for seed in range(3):
        assert kinds(exchange(begin="bar.sync 0;" + init(1024, 64) + "bar.sync 0;", seed=seed)[0]) == set()
    text = init(1024, 64) + arrive(1024)
    assert {"shared race", MISUSE} & kinds(run(text))
    assert kinds(run(text.replace("mbarrier.arrive", "bar.sync 0;\nmbarrier.arrive"))) == set()


def test_a_lane_that_waited_knows_it_alone():
    """The others of its warp must meet it first."""
    waiting = "and.b32 %r8, %r1, 31; setp.eq.u32 %p2, %r8, 3; @!%p2 bra ON;" + wait(1024, 0, "W") + "ON:\n"
    for seed in range(4):
        assert kinds(exchange(waiting=waiting, seed=seed)[0]) & RACES
        result, out = exchange(waiting=waiting + "bar.warp.sync -1;", seed=seed)
        assert result.ok, result.reports
        np.testing.assert_array_equal(out, np.arange(64) ^ 32)


def test_lanes_that_wait_for_their_own_warp():
    """Lane 0 waits, in code that comes first, for what the other lanes do in code that comes later."""
    body = init(1024, 31) + "bar.sync 0; @!%p1 bra OTHERS;" + wait(1024, 0, "W")
    body += "ld.shared.u32 %r7, [%r2+4]; st.global.u32 [%rd2], %r7; bra END;\n"
    body += "OTHERS: st.shared.u32 [%r4], %r1;\n" + arrive(1024) + "END:\n"
    out = np.zeros(32, np.int32)
    result = run(body, out=out, block=32)
    assert result.ok, result.reports
    assert out[0] == 1


STAGES, ROUNDS = 3, 11


def ring(stages=STAGES, empty_parity="1", release=True):
    """Warp 0 fills stages and warp 1 empties them; each stage has a barrier for being full and one for being empty."""
    full, empty = (lambda s: 4096 + 8 * s), (lambda s: 4160 + 8 * s)
    body = "".join(init(full(s), 32) + init(empty(s), 32) for s in range(STAGES)) + "bar.sync 0;\n"
    body += "setp.ge.u32 %p2, %r1, 32; @%p2 bra CONSUMER;\n"
    for r in range(ROUNDS):
        s, parity = r % stages, r // stages % 2
        body += wait(empty(s), parity ^ int(empty_parity), f"E{r}")
        body += f"add.s32 %r5, %r1, {100 * r}; st.shared.u32 [%r4+{256 * s}], %r5;\n" + arrive(full(s))
    body += "bra END;\nCONSUMER: xor.b32 %r8, %r3, 4; add.s32 %r9, %r2, %r8;\n"
    for r in range(ROUNDS):
        s, parity = r % stages, r // stages % 2
        body += wait(full(s), parity, f"F{r}")
        body += f"ld.shared.u32 %r6, [%r9+{256 * s - 128}]; st.global.u32 [%rd5+{128 * (r - 1)}], %r6;\n"
        body += arrive(empty(s)) if release else ""
    return body + "END:\n"


@pytest.mark.parametrize("seed", range(6))
def test_a_ring_of_stages(seed):
    out = np.zeros((ROUNDS, 32), np.int32)
    result = run(ring(), out=out, seed=seed)
    assert result.ok, [str(report) for report in result.reports]
    np.testing.assert_array_equal(out, 100 * np.arange(ROUNDS)[:, None] + (np.arange(32) ^ 1))
    assert kinds(run(ring(empty_parity="0"), seed=seed)) == {"deadlock"}
    assert "deadlock" in kinds(run(ring(release=False), seed=seed))


def test_arrivals_that_drop_out():
    """After it, later phases wait for one fewer."""
    body = init(1024, 64) + "bar.sync 0;"
    body += f"@%p1 mbarrier.arrive_drop.shared::cta.b64 _, [%r2+1024];\n@!%p1 {arrive(1024)}"
    body += wait(1024, 0, "A") + f"@!%p1 {arrive(1024)}" + wait(1024, 1, "B")
    assert run(body).ok
    assert kinds(run(body.replace("_drop", ""))) == {"deadlock"}


def test_a_place_may_be_used_again_after_inval():
    body = init(1024, 64) + "bar.sync 0;" + arrive(1024) + wait(1024, 0, "A") + "MEET"
    body += f"{FIRST}mbarrier.inval.shared::cta.b64 [%r2+1024]; {FIRST}st.shared.u32 [%r2+1024], 5;\n"
    body += init(1024, 64) + "bar.sync 0;" + arrive(1024) + wait(1024, 0, "B")
    assert run(body.replace("MEET", "bar.sync 0;")).ok
    assert "shared race" in kinds(run(body.replace("MEET", "")))
    again = body.replace("MEET", "bar.sync 0;").replace(f"{FIRST}mbarrier.inval.shared::cta.b64 [%r2+1024];", "")
    assert MISUSE in kinds(run(again))


@pytest.mark.parametrize(
    "line",
    [
        "mbarrier.arrive.shared::cta.b32 _, [%r2];",
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2];",
        "mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r2], 0, 100;",
        "mbarrier.arrive.acquire.shared::cta.b64 _, [%r2];",
        "mbarrier.test_wait.release.shared::cta.b64 %p1, [%r2], %s1;",
        "mbarrier.pending_count.b64 %r1, %s1;",
        "mbarrier.init.global.b64 [%rd1], 1;",
    ],
)
def test_what_is_not_known_is_quoted(line):
    with pytest.raises(PtxError) as error:
        run(line)
    assert line in str(error.value)

"""quaver.selftest: passes here, names what does not, and covers what it says it covers."""

import os
import re
import subprocess
import sys

import pytest
import torch

import quaver
from quaver import library, reference
from quaver.draw import CALLS, CODE_DTYPES, FLOAT_DTYPES
from quaver.selftest import case, compare, forms
from quaver.verify import VerificationError
from tests.cases import DEVICES, assert_bits

PYTHONPATH = os.pathsep.join(path for path in sys.path if path)


def in_a_shell(*arguments, before=""):
    """`python -m quaver ...`, where pytest cannot be imported."""
    program = f"""
import runpy, sys
sys.modules["pytest"] = sys.modules["hypothesis"] = sys.modules["numpy"] = None
{before}
sys.argv = ["quaver", *{list(arguments)!r}]
runpy.run_module("quaver", run_name="__main__")
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": PYTHONPATH}
    )


def rows_of(table):
    return [re.split(r"\s{2,}", line) for line in table.strip().splitlines()]


def test_it_passes_here_and_prints_a_table(capsys):
    assert quaver.selftest(2) is None
    head, *rows = rows_of(capsys.readouterr().out)
    assert head == ["op", "form", "device", "cases", "elements", "verdict"]
    assert {row[0] for row in rows} == set(library.OPS)
    assert {row[2].split(":")[0] for row in rows} == set(DEVICES)
    for _, _, _, cases, elements, verdict in rows:
        assert int(cases) > 0
        assert int(elements.replace(",", "")) > 0
        assert verdict == "same bits"


def test_it_takes_no_longer_than_it_may(capsys):
    import time

    began = time.monotonic()
    quaver.selftest(1, device="cpu")
    assert time.monotonic() - began < 10


def test_a_difference_is_named_and_can_be_made_again(monkeypatch, capsys):
    true = reference.int8_linear

    def wrong(x, *args, **kwargs):
        return true(x, *args, **kwargs) + (x.dtype == torch.bfloat16)

    with monkeypatch.context() as patch:
        patch.setattr(reference, "int8_linear", wrong)
        with pytest.raises(VerificationError) as caught:
            quaver.selftest(3, device="cpu", seed=5)
        words = (
            r"^2 of the forms above failed, int8_linear\.default on cpu "
            r"at case (\d+) of seed 5: VerificationError: quaver::int8_linear: "
        )
        number = int(re.search(words, str(caught.value)).group(1))
        with pytest.raises(VerificationError):
            compare("int8_linear", "default", case("int8_linear", number, seed=5))
    verdicts = {row[0]: row[-1] for row in rows_of(capsys.readouterr().out)[1:]}
    assert verdicts == {name: "FAILED" if name == "int8_linear" else "same bits" for name in library.OPS}
    assert compare("int8_linear", "default", case("int8_linear", number, seed=5)) > 0


def test_an_op_that_raises_is_a_failure():
    """As on a GPU for which there are no kernels."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, and its ops do not fail")
    rows = len(library.OPS) + len(library.WRITING_OPS)
    with pytest.raises(VerificationError, match=f"{rows} of the forms above failed, .* on cuda:0 at case 0"):
        quaver.selftest(1, device="cuda:0")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "60", True])
def test_seconds_are_positive(seconds):
    with pytest.raises(ValueError, match=r"^quaver.selftest: seconds must be a positive number, got "):
        quaver.selftest(seconds)


def test_from_a_shell_without_pytest():
    done = in_a_shell("selftest", "--seconds", "1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same bits") == sum(len(forms(op)) for op in library.OPS)
    assert in_a_shell("info", "--json").stdout.startswith("{")


def test_a_difference_is_an_exit_code():
    spoil = """
import quaver
true = quaver.reference.int8_linear
quaver.reference.int8_linear = lambda *args, **kwargs: -true(*args, **kwargs)
"""
    done = in_a_shell("selftest", "--seconds", "1", "--device", "cpu", before=spoil)
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == len(forms("int8_linear"))
    assert "VerificationError: quaver::int8_linear: the element at" in done.stderr


# What is drawn


def test_equal_seeds_draw_equal_calls():
    for name in CALLS:
        first, second = case(name, 3, seed=1), case(name, 3, seed=1)
        assert first.keys() == second.keys()
        for one, other in zip(first.values(), second.values(), strict=True):
            if isinstance(one, torch.Tensor):
                assert_bits(one, other)
                assert one.stride() == other.stride()
            else:
                assert one == other


def test_what_a_minute_covers():
    """Hundreds of cases an op meet every dtype, option, kind of scale and layout."""
    drawn = {name: [case(name, number) for number in range(300)] for name in CALLS}
    for name, calls in drawn.items():
        tensors = [value for call in calls for value in call.values() if isinstance(value, torch.Tensor)]
        assert any(not tensor.is_contiguous() for tensor in tensors)
        assert any(0 in tensor.stride() and tensor.numel() > 1 for tensor in tensors), "expanded"
        assert any(tensor.data_ptr() % 16 for tensor in tensors), "misaligned"
        assert any(tensor.numel() == 0 for tensor in tensors)
        assert max(tensor.numel() for tensor in tensors) >= 2**14, f"no call of {name} is large"
        optional = {a.name for a in getattr(torch.ops.quaver, name).default._schema.arguments}
        assert {key for call in calls for key in call} == optional
    x = [call["x"] for call in drawn["quantize"]]
    assert {each.dtype for each in x} == set(FLOAT_DTYPES)
    assert {each.dim() for each in x} == set(range(7))
    assert any(each.isnan().any() for each in x)
    assert any(each.isinf().any() for each in x)
    assert {call["dtype"] for call in drawn["quantize"]} == set(CODE_DTYPES)
    for call in drawn["quantize"]:
        assert bool((call["scale"] > 0).all())
        assert bool(call["scale"].isfinite().all())

"""Measured plans: the file that they are kept in, and what of a file is believed."""

import json
from dataclasses import asdict, replace

import pytest
import torch

import quaver
from quaver import tuning
from tests.cases import codes

HERE = tuning.Machine("NVIDIA A100", 13000, "0.1.0")
PROBLEM = (80, 108, 64, 384, 1536, 1, 0, 0)
PLAN = tuning.TunedPlan(PROBLEM, "skinny", 2, 7.5, {("small", 1): 8.0})
KEPT = replace(PLAN, others={})


def read(path, machine=HERE):
    return tuning.read(path, lambda: machine, "load_tuning")


# The file


def test_a_plan_that_is_kept_is_read(tmp_path):
    path = tmp_path / "plans.json"
    tuning.keep(path, HERE, PLAN)
    assert read(path) == [KEPT]


def test_plans_are_added_and_replaced(tmp_path):
    path = tmp_path / "plans.json"
    other = replace(KEPT, problem=(80, 108, 1, 384, 1536, 1, 0, 0), kernel="gemv")
    for plan in (PLAN, other, replace(PLAN, kernel="small", splits=1)):
        tuning.keep(path, HERE, plan)
    assert read(path) == [other, replace(KEPT, kernel="small", splits=1)]


@pytest.mark.parametrize("field", list(asdict(HERE)))
def test_plans_of_another_machine_are_ignored(tmp_path, field):
    path = tmp_path / "plans.json"
    tuning.keep(path, HERE, PLAN)
    there = replace(HERE, **{field: 1})
    with pytest.warns(UserWarning, match=rf"^quaver\.load_tuning: .*plans\.json is ignored: .*with {field} .*, not 1$"):
        assert read(path, there) == []
    with pytest.warns(UserWarning, match=r"^quaver\.tune_matmul: .* is ignored"):
        tuning.keep(path, there, PLAN)
    assert read(path, there) == [KEPT]


CONTENT = {"format": tuning.FORMAT, **asdict(HERE)}
ROW = [*PROBLEM, "skinny", 2, 7.5]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        '"' + tuning.FORMAT + '"',
        json.dumps({**CONTENT, "format": "quaver's matmul plans, 2", "plans": []}),
        *(
            json.dumps({**CONTENT, "plans": plans})
            for plans in (
                [7],
                [[]],
                [ROW[:-1]],
                [[*ROW[:-3], "fastest", 2, 7.5]],
                [[*ROW[:-3], "gemv", 2, 7.5]],  # for 64 rows
                [[*ROW[:-3], "skinny", 0, 7.5]],
                [[*ROW[:-3], "skinny", 1000, 7.5]],
                [[80, 0, *ROW[2:]]],
                [[80, 108, -1, *ROW[3:]]],
                [[80, 108, 2**62, 2**62, *ROW[4:]]],
                [[80, 108, 2**70, *ROW[3:]]],
                [[80, 108, 0.5, *ROW[3:]]],
                [[80, 108, None, *ROW[3:]]],
                [[*PROBLEM[:-1], 4, *ROW[-3:]]],
                [ROW, [*ROW[:-3], "gemv", 1, 7.5]],
            )
        ),
    ],
)
def test_a_corrupt_file_is_ignored(tmp_path, text):
    path = tmp_path / "plans.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match=r"^quaver\.load_tuning: .*plans\.json is ignored: "):
        assert read(path) == []


def test_what_cannot_be_read_is_ignored(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "binary"):
        with pytest.warns(UserWarning, match=r"is ignored: "):
            assert read(path) == []


# Refusals


def test_tune_matmul_refuses_what_is_not_on_a_gpu():
    a, b = codes(2, 32), codes(32, 4)
    with pytest.raises(ValueError, match=r"^quaver\.tune_matmul: a must be on a CUDA device, got cpu$"):
        quaver.tune_matmul(a, b)
    with pytest.raises(TypeError, match=r"^quaver\.tune_matmul: a must be a tensor, got list$"):
        quaver.tune_matmul([1], b)


def test_without_a_gpu_a_file_is_ignored_too(tmp_path, monkeypatch):
    path = tmp_path / "plans.json"
    tuning.keep(path, HERE, PLAN)
    monkeypatch.setattr(tuning, "cuda_unavailable_reason", "there is no GPU to be had")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: HERE.device)
    words = r"^quaver\.load_tuning: .*plans\.json is ignored: no CUDA implementation: there is no GPU to be had$"
    with pytest.warns(UserWarning, match=words):
        assert quaver.load_tuning(path) == 0
    quaver.clear_tuning()

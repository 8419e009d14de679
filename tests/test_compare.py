"""compare and sensitivity: what they measure, by hand and against plain computations, as tables and pictures."""

import csv
import math

import pytest
import torch

import quaver
from quaver import PerTensor, QuantConfig, compare, quantize_model, sensitivity
from quaver.compare import OUTPUT
from tests.cases import needed
from tests.test_calibration import BATCHES, STATIC, Keywords, Mlp, assert_untouched, state_of


def measures(expected, actual):
    expected, actual = expected.double().flatten(), actual.double().flatten()
    noise = (expected - actual).square().sum()
    return {
        "sqnr_db": 10 * math.log10(expected.square().sum() / noise),
        "cosine": torch.nn.functional.cosine_similarity(expected, actual, 0).item(),
    }


def assert_near(row, expected):
    assert row["sqnr_db"] == pytest.approx(expected["sqnr_db"], abs=1e-6)
    assert row["cosine"] == pytest.approx(expected["cosine"], abs=1e-9)


def test_by_hand():
    """Signal 3, 4; noise 0, 0.5 of the one layer, which is the result too."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0], [4.0]]))
    int8 = quantize_model(model)
    int8[0].weight_scale[1] *= 4.5 / 4
    comparison = compare(model, int8, [torch.ones(1, 1)])
    for name in ("0", OUTPUT):
        assert comparison[name]["sqnr_db"] == pytest.approx(10 * math.log10(25 / 0.25), abs=1e-4)
        assert comparison[name]["cosine"] == pytest.approx((9 + 18) / 5 / math.sqrt(9 + 4.5**2), abs=1e-6)


@torch.no_grad()
def test_rows_are_layers_and_the_result():
    model = Mlp().eval()
    int8 = quantize_model(model, STATIC, BATCHES)
    comparison = compare(model, int8, BATCHES)
    assert [row["name"] for row in comparison.rows] == ["stem", "left", "right", "head", OUTPUT]
    x = torch.cat(BATCHES)
    assert_near(comparison[OUTPUT], measures(model(x), int8(x)))
    codes = quaver.dequantize(int8.stem(x), int8.stem.output)  # which come out of a ReLU
    assert_near(comparison["stem"], measures(model.stem(x).relu(), codes))


def test_both_models_stay_what_they_are():
    model = Mlp().train()
    int8 = quantize_model(model)
    before = state_of(model), state_of(int8)
    compare(model, int8, BATCHES)
    sensitivity(model, STATIC, BATCHES)
    assert_untouched(model, before[0])
    assert_untouched(int8, before[1])


@torch.no_grad()
def test_sensitivity_is_of_one_layer_alone():
    model = Mlp().eval()
    alone = sensitivity(model, STATIC, BATCHES)
    assert [row["name"] for row in alone.rows] == ["stem", "left", "right", "head", OUTPUT]
    only_left = QuantConfig(overrides={"left": STATIC, "*": None})
    x = torch.cat(BATCHES)
    assert_near(alone["left"], measures(model(x), quantize_model(model, only_left, BATCHES)(x)))
    assert_near(alone[OUTPUT], measures(model(x), quantize_model(model, STATIC, BATCHES)(x)))


def test_sensitivity_finds_the_layer_at_fault():
    """Weights that no data ever meets take all codes of a layer."""
    model = Mlp()
    with torch.no_grad():
        model.right.weight[:, 3] = 1e3
        model.stem.weight[3], model.stem.bias[3] = 0, 0
    alone = sensitivity(model, batches=BATCHES)
    worst, second = sorted(alone.rows[:-1], key=lambda row: row["sqnr_db"])[:2]
    assert worst["name"] == "right"
    assert worst["sqnr_db"] < second["sqnr_db"] - 20


def test_models_that_are_called_by_name():
    batches = [{"data": batch} for batch in BATCHES]
    comparison = compare(Keywords(), quantize_model(Keywords()), batches[:1])
    assert [row["name"] for row in comparison.rows] == ["first", "second", OUTPUT]


def test_equal_models():
    model = Mlp()
    row = compare(model, model, BATCHES)[OUTPUT]
    assert row["sqnr_db"] == math.inf
    assert row["cosine"] == pytest.approx(1)


def test_table_csv_and_picture(tmp_path):
    needed("matplotlib")
    comparison = compare(Mlp(), quantize_model(Mlp()), BATCHES)
    assert str(comparison).splitlines()[0] == "layer     SQNR, dB    cosine"
    assert len(str(comparison).splitlines()) == 6
    comparison.to_csv(tmp_path / "layers.csv")
    with open(tmp_path / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [row["name"] for row in comparison.rows]
    assert float(rows[0]["sqnr_db"]) == comparison.rows[0]["sqnr_db"]
    comparison.plot(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("function", [compare, sensitivity])
def test_no_batches(function):
    arguments = (Mlp(), quantize_model(Mlp())) if function is compare else (Mlp(), QuantConfig(), None)
    with pytest.raises(ValueError, match=f"{function.__name__}: batches yielded none"):
        function(*arguments, [])


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match=r"compare: float_model has no layers \['first', 'second'\]"):
        compare(Mlp(), quantize_model(Keywords()), BATCHES)
    with pytest.raises(ValueError, match="sensitivity: batches must be given where calibration is not"):
        sensitivity(Mlp())
    with pytest.raises(ValueError, match="static layers need calibration"):
        sensitivity(Mlp(), QuantConfig(activations=PerTensor()), None, BATCHES)

"""to_onnx: what onnxruntime makes of the files, at every code, with its graph optimizations and without."""

import copy
import importlib.util
import os
from functools import partialmethod

import pytest
import torch
from torch.nn import Embedding, Linear

import quaver
from quaver import QuantizationParams, QuantLinear
from quaver.nn import FakeQuantLinear, QuantConv2d, QuantEmbedding
from tests.cases import EDGE_VALUES, assert_bits, needed, normal

onnx = needed("onnx")
needed("onnxscript")
runtime = needed("onnxruntime")

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # torch's exporter's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LEVELS = {
    "plain": runtime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "optimized": runtime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
ROUNDING = 2.0**-24
K = 24


def run(path_or_model, inputs, level, without_vnni="1"):
    """{name of an output: tensor}. By its option onnxruntime takes care not to saturate within sums, see to_onnx."""
    options = runtime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", without_vnni)
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 3
    file = path_or_model if isinstance(path_or_model, bytes) else os.fspath(path_or_model)
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    values = session.run(None, feeds)
    return {output.name: torch.from_numpy(value) for output, value in zip(session.get_outputs(), values, strict=True)}


def params(scale, zero_point, low=-128, high=127):
    return QuantizationParams(
        torch.tensor([scale]), torch.tensor([zero_point], dtype=torch.int32), low, high, zero_point == 0
    )


def linear(*sizes, bias=True, dtype=torch.float32, seed=0):
    layer = Linear(*sizes, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(0.2 * normal(*reversed(sizes), seed=seed))
        if bias:
            layer.bias.copy_(normal(sizes[1], seed=seed + 1))
    return layer.to(dtype)


class EveryKind(torch.nn.Module):
    """Each kind of layer. What comes out are codes where a layer gives codes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        made = QuantLinear.from_float
        between, symmetric, narrow = params(0.07, -30), params(0.05, 0, -127), params(0.04, 5, -100, 90)
        self.dynamic = made(linear(K, 8, seed=1), relu=True)
        self.shifted = made(linear(K, 8, bias=False, seed=2), symmetric=False, weights=quaver.PerTensor())
        self.dynamic_codes = made(linear(K, 8, seed=3), symmetric=False, output=narrow)
        self.static = made(linear(K, 16, seed=4), input=params(0.03, 7), output=between, relu=True)
        self.takes_codes = made(linear(16, 8, seed=5), input=between)
        self.symmetric = made(linear(K, 16, seed=6), input=symmetric, output=symmetric, weights=quaver.PerTensor())
        self.ends = made(linear(16, 8, seed=7), input=symmetric, output=narrow, relu=True)
        self.of_bfloat16 = made(linear(K, 8, dtype=torch.bfloat16, seed=8), input=narrow)
        self.powers = made(linear(K, 16, bias=False, seed=9), input=params(2.0**-3, 3), output=params(2.0**-1, -5))
        self.last_powers = made(linear(16, 8, bias=False, seed=10), input=params(2.0**-1, -5))
        self.powers.weight_q[:2] = torch.tensor([[127], [-127]], dtype=torch.int8)
        self.powers.weight_sum.copy_(self.powers.weight_q.sum(1, True))
        self.powers.weight_scale.fill_(2.0**-7)
        self.last_powers.weight_scale.fill_(2.0**-7)
        self.table = QuantEmbedding.from_float(Embedding(11, 6, padding_idx=2))

    def forward(self, x, tokens):
        given = {"x": x, "x_bfloat16": x.to(torch.bfloat16)}
        for name in ("static", "symmetric", "powers"):
            given[name] = self.get_submodule(name)(x)
        for name, taken in TAKES.items():
            given[name] = self.get_submodule(name)(given[taken])
        given["of_bfloat16"] = given["of_bfloat16"].to(torch.float32)
        return {name: given[name] for name in TAKES} | {"table": self.table(tokens)}


# {layer: what it takes}
TAKES = dict.fromkeys(("dynamic", "shifted", "dynamic_codes", "static", "symmetric", "powers"), "x")
TAKES |= {"takes_codes": "static", "ends": "symmetric", "of_bfloat16": "x_bfloat16", "last_powers": "powers"}
EXAMPLE = (normal(2, 3, K), torch.zeros(2, 3, dtype=torch.int64))


def outputs(*args, **options):
    return dict(zip([*TAKES, "table"], run(*args, **options).values(), strict=True))


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """(the model, {exact: its file})"""
    model = EveryKind()
    files = {exact: tmp_path_factory.mktemp("onnx") / f"{exact}.onnx" for exact in (False, True)}
    for exact, path in files.items():
        quaver.to_onnx(model, path, EXAMPLE, exact=exact)
    return model, files


def random_inputs(batch=50):
    x = 4 * normal(batch, 3, K, seed=9)
    x[0, 0] = 0
    return {"x": x, "tokens": torch.arange(3 * batch).reshape(batch, 3) % 11}


def edge_inputs():
    """Rows with ties, denormals, numbers that overflow, infinities and NaN; some without the large ones."""
    values = EDGE_VALUES.repeat(K)[: len(EDGE_VALUES) // 3 * 3 * K]
    smaller = torch.where(values.abs() < 1e3, values, 0.5)
    rows = torch.cat([values, values * 0.03, smaller, smaller * 0.05, -smaller * 2.0**-4]).reshape(-1, 3, K)
    return {"x": rows, "tokens": torch.zeros(rows.shape[:2], dtype=torch.int64)}


def large_inputs():
    """Codes at the ends of their range, for the largest sums."""
    x = torch.where(normal(20, 3, K) < 1, 1e3, -1e3)
    x[0], x[1] = 1e3, -1e3
    return {"x": x, "tokens": torch.zeros(20, 3, dtype=torch.int64)}


# The files


@pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])
def test_the_checker_passes(every_kind, exact):
    model = onnx.load(every_kind[1][exact])
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param != "" for each in sizes] == [True, False, False]
    assert os.listdir(every_kind[1][exact].parent) == [f"{exact}.onnx"]


def test_it_is_qdq(every_kind):
    """Every MatMul multiplies what two DequantizeLinear give; the weight's has int8 codes, and its axis the outputs."""
    graph = onnx.load(every_kind[1][False]).graph
    made_by = {name: node for node in graph.node for name in node.output}
    held = {each.name: each for each in graph.initializer}
    axes = []
    for product in (node for node in graph.node if node.op_type == "MatMul"):
        left, right = (made_by[name] for name in product.input)
        assert left.op_type == right.op_type == "DequantizeLinear"
        assert made_by[left.input[0]].op_type == "QuantizeLinear"
        weight, scale, _ = (held[name] for name in right.input)
        assert weight.data_type == onnx.TensorProto.INT8
        axes.append((list(scale.dims), [each.i for each in right.attribute if each.name == "axis"]))
    assert sorted(axes) == [([], [])] * 2 + [([8], [1])] * 6 + [([16], [1])] * 2
    kinds = [node.op_type for node in graph.node]
    assert "MatMulInteger" not in kinds
    assert kinds.count("QuantizeLinear") == 2 + 4 + 5  # of rows, two layers sharing theirs, of inputs, of results
    assert kinds.count("Gather") == 2


# Exactly


@pytest.mark.parametrize("inputs", [random_inputs, edge_inputs, large_inputs])
@pytest.mark.parametrize("without_vnni", ["0", "1"])
@pytest.mark.parametrize("level", LEVELS)
def test_exact_is_to_the_last_bit(every_kind, inputs, level, without_vnni):
    model, files = every_kind
    given = inputs()
    expected = model(**given)
    for name, actual in outputs(files[True], given, level, without_vnni=without_vnni).items():
        if expected[name].dtype == torch.float32:
            actual, expected[name] = actual + 0, expected[name] + 0  # a Relu may leave -0
        assert_bits(actual, expected[name])


# In floats


def with_codes_seen(path):
    """The file with what each QuantizeLinear takes and gives among the outputs, and [(their four names, axis)]."""
    model = onnx.load(path)
    seen = []
    held = {each.name for each in model.graph.initializer}
    shown = {each.name for each in model.graph.output}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        seen.append(([*node.input, *node.output], any(each.name == "axis" for each in node.attribute)))
        for name, kind in zip(seen[-1][0], ("FLOAT", "FLOAT", "INT8", "INT8"), strict=True):
            if name not in held | shown | {"x"}:
                shown.add(name)
                info = onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), None)
                model.graph.output.append(info)
    values = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in model.graph.initializer}
    return model.SerializeToString(), seen, values


@pytest.mark.parametrize("level", LEVELS)
def test_equal_numbers_become_equal_codes(every_kind, level):
    """Each QuantizeLinear of the file gives the codes of quaver.quantize, of what it takes there, bit for bit."""
    file, seen, values = with_codes_seen(every_kind[1][False])
    for given in (random_inputs(), edge_inputs()):
        values |= given | run(file, given, level)
        for names, of_rows in seen:
            x, scale, zero_point, q = (values[name] for name in names)
            if of_rows:
                scale, zero_point = scale.reshape(-1, 1), zero_point.reshape(-1, 1)
            real = ~x.isnan()
            assert_bits(q[real], quaver.quantize(x, scale, zero_point)[real])


@pytest.mark.parametrize("level", LEVELS)
def test_first_codes_are_ours(every_kind, level):
    """What rows and inputs become, by ours and by the file: parameters of rows too."""
    file, seen, values = with_codes_seen(every_kind[1][False])
    model = every_kind[0]
    for given in (random_inputs(), edge_inputs()):
        values |= given | run(file, given, level)
        x = given["x"]
        rows = {tuple(names): of_rows for names, of_rows in seen if of_rows}
        assert len(rows) == 2
        for symmetric, (_, scale, zero_point, q) in zip((True, False), rows, strict=True):
            expected, expected_params = quaver.dynamic_quantize(x.reshape(-1, K), symmetric=symmetric)
            assert_bits(values[q], expected)
            assert_bits(values[scale], expected_params.scale.flatten())
            assert_bits(values[zero_point].to(torch.int32), expected_params.zero_point.flatten())
        firsts = [values[names[3]] for names, of_rows in seen if not of_rows and values[names[3]].shape == x.shape]
        wanted = [quaver.quantize(x, model.get_submodule(name).input) for name in ("static", "symmetric", "powers")]
        wanted.append(quaver.quantize(x.to(torch.bfloat16), model.of_bfloat16.input))
        assert len(firsts) == len(wanted)
        real = ~x.isnan()
        for expected in wanted:
            assert any(torch.equal(first[real], expected[real]) for first in firsts)


@pytest.mark.parametrize("level", LEVELS)
def test_by_powers_of_two_all_codes_are_ours(every_kind, level):
    """Where float products are exact, ties included, nothing is left to differ."""
    model, files = every_kind
    given = random_inputs()
    actual, expected = outputs(files[False], given, level), model(**given)
    codes = expected["powers"]
    assert len(codes.unique()) > 50
    assert_bits(actual["powers"], codes)
    assert_bits(actual["last_powers"] + 0, expected["last_powers"] + 0)
    assert_bits(actual["table"], expected["table"])  # one product each


def result(layer, x):
    """(a layer's float32 result, how far a sum of the same products in floats, in any order, can be from it)"""
    if layer.input is None:
        q, held = quaver.dynamic_quantize(x, symmetric=layer.symmetric)
    else:
        q, held = x if x.dtype == torch.int8 else quaver.quantize(x, layer.input), layer.input
    arguments = (q, layer.weight_q.t(), held, layer.weight_scale.t())
    y = quaver.int8_matmul_dequantize(*arguments, bias=layer.bias, relu=layer.relu)
    weight = quaver.dequantize(layer.weight_q, layer.weight_scale)
    magnitude = quaver.dequantize(q, held).abs() @ weight.abs().t() + (0 if layer.bias is None else layer.bias.abs())
    # each product is of two rounded factors; then come sums, a bias and, for us or a fused kernel, four roundings
    return y, ROUNDING * (layer.in_features + 8) * magnitude


@pytest.mark.parametrize("level", LEVELS)
def test_floats_are_near_and_codes_equal_but_at_ties(every_kind, level):
    model, files = every_kind
    given = random_inputs()
    actual = outputs(files[False], given, level)
    taken = {**actual, **given, "x_bfloat16": given["x"].to(torch.bfloat16)}
    for name, takes in TAKES.items():
        layer = model.get_submodule(name)
        y, bound = result(layer, taken[takes])
        if layer.output is None:
            bound = bound + (2.0**-8 * y.abs() if name == "of_bfloat16" else 0)
            assert ((actual[name] - y).abs() <= bound).all(), name
            assert y.abs().max() > 100 * bound.max()
            continue
        expected = quaver.quantize(y, layer.output)
        differs = actual[name] != expected
        assert ((actual[name].int() - expected.int()).abs() <= 1).all(), name
        quotient = y.double() / layer.output.scale.double()
        from_a_tie = (quotient - quotient.floor() - 0.5).abs()
        near = from_a_tie <= bound / layer.output.scale + 2 * ROUNDING * quotient.abs()
        assert near[differs].all(), name
        assert differs.float().mean() < 0.01


# Convolutions


def conv(*sizes, seed=0, **options):
    layer = torch.nn.Conv2d(*sizes, **options)
    with torch.no_grad():
        layer.weight.copy_(0.2 * normal(*layer.weight.shape, seed=seed))
        if layer.bias is not None:
            layer.bias.copy_(normal(sizes[1], seed=seed + 1))
    return layer


class EveryConv(torch.nn.Module):
    """Convolutions of each kind: {name: what it takes} in `takes`."""

    def __init__(self):
        super().__init__()
        made, between, narrow = QuantConv2d.from_float, params(0.07, -30), params(0.04, 5, -100, 90)
        self.dynamic = made(conv(6, 8, 3, padding=1, seed=1), relu=True)
        self.shifted = made(conv(6, 8, (1, 3), bias=False, seed=2), symmetric=False, weights=quaver.PerTensor())
        self.dynamic_codes = made(conv(6, 9, 3, stride=2, groups=3, seed=3), symmetric=False, output=narrow)
        first = conv(6, 12, 3, padding=(1, 2), seed=4)
        self.static = made(first, input=params(0.03, 7), output=between, relu=True)
        self.takes_codes = made(conv(12, 4, 3, padding=2, dilation=2, seed=5), input=between)
        self.depthwise = made(conv(12, 12, 3, padding=1, groups=12, seed=6), input=between, output=narrow)
        self.takes = dict.fromkeys(("dynamic", "shifted", "dynamic_codes", "static"), "x")
        self.takes |= dict.fromkeys(("takes_codes", "depthwise"), "static")

    def forward(self, x):
        given = {"x": x}
        for name, taken in self.takes.items():
            given[name] = self.get_submodule(name)(given[taken])
        return {name: given[name] for name in self.takes}


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """(the model, {exact: its file})"""
    model, files = EveryConv(), {}
    for exact in (False, True):
        files[exact] = tmp_path_factory.mktemp("onnx") / f"{exact}.onnx"
        quaver.to_onnx(model, files[exact], normal(2, 6, 9, 7), exact=exact)
        onnx.checker.check_model(onnx.load(files[exact]), full_check=True)
    return model, files


def images():
    """Ordinary ones, and some with what is not finite, with ties and with the ends of float32."""
    x = 4 * normal(20, 6, 9, 7)
    yield x
    edges = EDGE_VALUES.repeat(6 * 9 * 7)[: 3 * 6 * 9 * 7].reshape(3, 6, 9, 7)
    yield torch.cat([edges, x[:2]])
    yield torch.where(edges.abs() < 1e3, edges, 0.5)


@pytest.mark.parametrize("level", LEVELS)
def test_exact_convolutions_are_to_the_last_bit(convolutions, level):
    model, files = convolutions
    for x in images():
        expected = model(x)
        actual = dict(zip(model.takes, run(files[True], {"x": x}, level).values(), strict=True))
        for name in model.takes:
            if expected[name].dtype == torch.float32:
                actual[name], expected[name] = actual[name] + 0, expected[name] + 0  # a Relu may leave -0
            assert_bits(actual[name], expected[name])


def conv_result(layer, x):
    """(a layer's float32 result, how far a sum of the same products in floats, in any order, can be from it)"""
    if layer.input is None:
        q, held = quaver.dynamic_quantize(x, quaver.PerTensor(), symmetric=layer.symmetric)
    else:
        q, held = x if x.dtype == torch.int8 else quaver.quantize(x, layer.input), layer.input
    shape = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    y = quaver.int8_conv2d(q, layer.weight_q, held, layer.weight_scale, bias=layer.bias, relu=layer.relu, **shape)
    weight, real = quaver.dequantize(layer.weight_q, layer.weight_scale), quaver.dequantize(q, held)
    bias = None if layer.bias is None else layer.bias.abs()
    magnitude = torch.nn.functional.conv2d(real.abs(), weight.abs(), bias, **shape)
    return y, ROUNDING * (layer.weight_q[0].numel() + 8) * magnitude


@pytest.mark.parametrize("level", LEVELS)
def test_convolutions_in_floats_are_near_and_codes_equal_but_at_ties(convolutions, level):
    model, files = convolutions
    x = next(images())
    actual = {"x": x} | dict(zip(model.takes, run(files[False], {"x": x}, level).values(), strict=True))
    for name, takes in model.takes.items():
        layer = model.get_submodule(name)
        y, bound = conv_result(layer, actual[takes])
        if layer.output is None:
            assert ((actual[name] - y).abs() <= bound).all(), name
            continue
        differs = actual[name] != quaver.quantize(y, layer.output)
        assert ((actual[name].int() - quaver.quantize(y, layer.output).int()).abs() <= 1).all(), name
        assert differs.float().mean() < 0.01, name


# What is given


class Keywords(torch.nn.Module):
    """One that is called by name, and calls its layer twice."""

    def __init__(self):
        super().__init__()
        self.layer = QuantLinear.from_float(linear(K, 4), input=params(0.03, 7))

    def forward(self, *, data):
        return self.layer(data), self.layer(-data)


def test_keywords_and_sizes_by_name_and_a_second_file(tmp_path, monkeypatch):
    """Exported on a copy in eval mode: the model stays as it is, in training mode here."""
    written_apart = partialmethod(torch.onnx.ONNXProgram.save, external_data=True)  # as of 2 GB on
    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", written_apart)
    model, path = Keywords().train(), tmp_path / "model.onnx"
    before = repr(model), copy.deepcopy(model.state_dict())
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    sizes = {"data": {0: rows, 1: columns}}
    quaver.to_onnx(model, path, {"data": normal(2, 3, K)}, dynamic_shapes=sizes)
    assert repr(model) == before[0]
    assert model.training
    for name, tensor in model.state_dict().items():
        assert_bits(tensor, before[1][name])
    sizes = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in sizes] == ["rows", "columns", K]
    x = normal(4, 5, K, seed=3)
    for given, actual in zip((x, -x), run(path, {"data": x}, "plain").values(), strict=True):
        y, bound = result(model.layer, given)
        assert ((actual - y).abs() <= bound).all()
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"]


def test_what_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("before")

    class Mine(QuantLinear):
        pass

    with pytest.raises(
        ValueError, match="to_onnx: layer '0' must be QuantLinear or QuantConv2d or QuantEmbedding, got Mine"
    ):
        quaver.to_onnx(torch.nn.Sequential(Mine(4, 4)), path, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"to_onnx: the model calls quaver::\w+ outside of int8 layers"):
        quaver.to_onnx(FakeQuantLinear(4, 4), path, torch.zeros(2, 4))
    find = importlib.util.find_spec
    monkeypatch.setattr("quaver.onnx_export.find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(
        ModuleNotFoundError, match="to_onnx needs the packages onnx and onnxscript, and onnxscript is not"
    ):
        quaver.to_onnx(QuantLinear(4, 4), path, torch.zeros(2, 4))
    assert path.read_text() == "before"

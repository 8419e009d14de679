"""Int8 layers as compressed-tensors has them: which can be, what tensors they are there, and layers of such tensors."""

import torch

from quaver.compressed_tensors_config import Scheme
from quaver.graph import consumers
from quaver.model import Fused, agree, fusions
from quaver.nn import QuantEmbedding, QuantLinear
from quaver.nn.module import Int8Module
from quaver.qparams import PerChannel, PerTensor, QuantizationParams, full_range
from quaver.tensor_file import dtype_name, join, same_bits, saying

LAYOUT_RANGE = full_range(torch.int8)  # of activations: the layout has no other
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


# Layers to tensors.


def check_layers(model, layers):
    """Refuses, with a ValueError, those of {name: layer} that would be others with no more than the layout's fields."""
    if not layers:
        raise ValueError("the model has no int8 layer")
    flow = consumers(model)
    module = dict(model.named_modules(remove_duplicate=False))
    for name, layer in layers.items():
        if type(layer) not in (QuantLinear, QuantEmbedding):
            raise ValueError(f"layer {name!r}: must be QuantLinear or QuantEmbedding, got {type(layer).__name__}")
        takers = flow.get(name, ())
        if getattr(layer, "relu", False):
            if [type(module[taker]) for taker in takers] != [torch.nn.Identity]:
                raise ValueError(
                    f"layer {name!r}: the layout has no relu, and no Identity is in the model's own one's place"
                )
            takers = flow.get(takers[0], ())
        if getattr(layer, "output", None) and not _make_its_codes(layer, [module[taker] for taker in takers]):
            raise ValueError(f"layer {name!r}: the layout has no output, and no next layers make its codes of float32")


def _make_its_codes(layer, takers):
    """Whether they would of its float result: the op that gives codes rounds that result to float32, and no further."""
    inputs = [taker.input if isinstance(taker, QuantLinear) else None for taker in takers]
    return layer.dtype == torch.float32 and bool(inputs) and None not in inputs and agree([layer.output, *inputs])


def scheme_of(layer):
    if isinstance(layer, QuantEmbedding):
        return Scheme(True, None)
    channels = layer.weight_scale.numel() == layer.out_features
    return Scheme(channels, "dynamic" if layer.input is None else "static", layer.symmetric)


def tensors_of(layer):
    """{name in the layout: tensor}"""
    scheme = scheme_of(layer)
    scale = layer.weight_scale if scheme.channels else layer.weight_scale.reshape(1)
    tensors = {"weight": layer.weight_q, "weight_scale": scale}
    bias = getattr(layer, "bias", None)
    if bias is not None:
        narrow = bias.to(layer.dtype)
        tensors["bias"] = narrow if torch.equal(narrow.to(torch.float32), bias) else bias
    if scheme.activations == "static":
        tensors["input_scale"] = layer.input.scale
        if not layer.symmetric:
            tensors["input_zero_point"] = layer.input.zero_point.to(torch.int8)
    return tensors


# Tensors to layers.


def made_of(model, schemes, ranges, tensors):
    """({module of the model: what takes its place, on the device meta}, {name: tensor of the state that it then has}).

    Arguments:
        schemes: {name of a layer: its Scheme}.
        ranges: {name of a layer: (q_min, q_max) of its static input}, where it is not the layout's.
        tensors: {name: tensor} of the files.

    Raises ValueError for tensors that are not those of the layers.
    """
    names = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Int8Module):
            raise ValueError(f"layer {name!r}: the model must be float, got {type(module).__name__}")
        names.setdefault(module, []).append(name)
    layers = {model.get_submodule(name): name for name in schemes}
    parts, state = _by_layer([name for layer in layers for name in names[layer]], tensors)
    states, inputs = {}, {}
    for layer, name in layers.items():
        with saying(f"layer {name!r}"):
            its_parts = _only([parts[each] for each in names[layer] if parts[each]])
            _check_parts(layer, schemes[name], its_parts)
            states[layer], params = _state_of(layer, schemes[name], its_parts, ranges.get(name, LAYOUT_RANGE))
        if params is not None:
            inputs[layer] = params
    fused, made = fusions(model, layers, inputs), {}
    for layer, name in layers.items():
        moved = fused.get(layer, Fused())
        if moved.relu is not None:
            made[moved.relu] = torch.nn.Identity()
        held = {"input": inputs.get(layer), "output": moved.output}
        made[layer] = _int8(layer, schemes[name], relu=moved.relu is not None, **held)
        its_state = states[layer] | _state_of_params(held)
        state |= {join(each, key): tensor for each in names[layer] for key, tensor in its_state.items()}
    return made, state


def _by_layer(layers, tensors):
    """({name of a layer: {name: tensor}}, {name: tensor} of all else)"""
    parts, others = {name: {} for name in layers}, {}
    for full_name, tensor in tensors.items():
        layer, _, name = full_name.rpartition(".")
        if layer in parts:
            parts[layer][name] = tensor
        else:
            others[full_name] = tensor
    return parts, others


def _only(given):
    """A layer's tensors, which a shared one may have under each of its names."""
    first, *others = given or [{}]
    for other in others:
        if first.keys() != other.keys() or not all(same_bits(first[name], other[name]) for name in first):
            raise ValueError("one module in the model, several in the files")
    return first


def _check_parts(module, scheme, parts):
    wanted = torch.nn.Linear if scheme.activations else torch.nn.Embedding
    if type(module) is not wanted:
        kind = f"{scheme.activations} activations" if scheme.activations else "int8 weights alone"
        raise ValueError(f"only {wanted.__name__} can have {kind} in quaver, got {type(module).__name__}")
    if getattr(module, "max_norm", None) is not None:
        raise ValueError("a table that max_norm changes as it is read cannot be int8")
    needed = {"weight", "weight_scale"} | ({"bias"} if getattr(module, "bias", None) is not None else set())
    zeros = {"weight_zero_point"}  # that some writers have beside symmetric scales
    if scheme.activations == "static":
        needed |= {"input_scale"}
        (zeros if scheme.symmetric else needed).add("input_zero_point")
    if not needed <= parts.keys() <= needed | zeros:
        raise ValueError(f"its tensors must be {sorted(needed)}, got {sorted(parts)}")
    for name in zeros & parts.keys():
        if parts[name].any():
            raise ValueError(f"{name} must be 0, as of symmetric codes")


def _state_of(module, scheme, parts, codes):
    """(its int8 module's state but for parameters of activations, QuantizationParams of its static input or None)"""
    weight = parts["weight"]
    if weight.dtype != torch.int8 or weight.shape != module.weight.shape:
        wanted, given = list(module.weight.shape), f"{dtype_name(weight)} {list(weight.shape)}"
        raise ValueError(f"weight must be int8 {wanted}, got {given}")
    scale = _scales(parts, "weight_scale", len(weight) if scheme.channels else 1).reshape(-1, 1)
    if scheme.activations is None:
        return {"weight_q": weight, "weight_scale": scale.expand(len(weight), 1)}, None
    state = {"weight_q": weight, "weight_scale": scale, "weight_sum": weight.sum(1, keepdim=True, dtype=torch.int32)}
    if "bias" in parts:
        state["bias"] = _widened(parts, "bias")
    if scheme.activations == "dynamic":
        return state, None
    input_scale = _scales(parts, "input_scale", 1)
    zero_point = torch.zeros(1, dtype=torch.int32)
    if not scheme.symmetric:
        given = parts["input_zero_point"]
        if given.dtype != torch.int8 or given.numel() != 1:
            raise ValueError(f"input_zero_point must be one int8, got {given.numel()} of {dtype_name(given)}")
        zero_point = given.reshape(1).to(torch.int32)
    return state, QuantizationParams(input_scale, zero_point, *codes, scheme.symmetric)


def _scales(parts, name, count):
    scale = _widened(parts, name)
    if scale.numel() != count:
        raise ValueError(f"{name} must have {count} elements, got the shape {list(scale.shape)}")
    if not (scale > 0).logical_and(scale < torch.inf).all():
        raise ValueError(f"{name} must be positive and finite")
    return scale.flatten()


def _widened(parts, name):
    if parts[name].dtype not in FLOATS:
        raise ValueError(f"{name} must be {' or '.join(map(str, FLOATS))}, got {parts[name].dtype}")
    return parts[name].to(torch.float32)


def _int8(module, scheme, *, relu, input, output):
    dtype, device = module.weight.dtype, "meta"
    if scheme.activations is None:
        sizes = module.num_embeddings, module.embedding_dim, module.padding_idx
        return QuantEmbedding(*sizes, dtype=dtype, device=device)
    return QuantLinear(
        module.in_features,
        module.out_features,
        module.bias is not None,
        symmetric=scheme.symmetric,
        relu=relu,
        input=input,
        output=output,
        weights=PerChannel(0) if scheme.channels else PerTensor(),
        dtype=dtype,
        device=device,
    )


def _state_of_params(held):
    """As Int8Module names them."""
    given = {name: params for name, params in held.items() if params is not None}
    scales = {f"{name}_scale": params.scale for name, params in given.items()}
    return scales | {f"{name}_zero_point": params.zero_point for name, params in given.items()}

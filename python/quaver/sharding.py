"""What quaver's ops do with DTensors, tensors that lie in parts on the devices of a mesh.

Each op has its choices: which dimension of which tensor may be cut over one dimension of a mesh, and how the results
then lie. Of them a call takes the one that moves the least of what it was given; then every device works on its own
parts. Where K is cut, and where a range is of elements on several devices, what those devices have found is joined, in
integers or as extremes: in any order the same bits. Whatever the placements, results have the bits of whole tensors;
but of floats that are sums in parts, Partial, torch adds the parts in an order of its own.
"""

from functools import lru_cache

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from quaver.library import CPU_OPS, NAMESPACE, OPS, WRITING_OPS, as_tuple
from quaver.qparams import qparams_range

_ops = torch.ops.quaver

PACKED = ("b_packed", "weight_packed")
WEIGHTS = ("b", "weight_q", "weight")  # what packed ones are of
SUMS = ("a_sum", "b_sum", "weight_sum")
WHOLE = Replicate()
ADDED = Partial("sum")


class Call:
    """A call of an op: its tensors as DTensors of one mesh, its other arguments by name."""

    def __init__(self, overload, args, kwargs):
        self.overload = overload
        self.op = overload._schema.name.split("::")[1]
        declared = overload._schema.arguments
        self.arguments = dict(zip((each.name for each in declared), args, strict=False)) | kwargs
        self.packed = {name: self.arguments.pop(name) for name in PACKED if name in self.arguments}
        tensors = {name: value for name, value in self.arguments.items() if isinstance(value, torch.Tensor)}
        self.mesh = self._mesh(tensors)
        self.tensors = {name: self._distributed(name, tensor) for name, tensor in tensors.items()}
        self.arguments |= self.tensors

    def _mesh(self, tensors):
        meshes = {name: tensor.device_mesh for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
        if not meshes:
            raise RuntimeError(f"quaver::{self.op}: a packed weight must not be the only DTensor")
        first = next(iter(meshes))
        for name, mesh in meshes.items():
            if mesh != meshes[first]:
                raise RuntimeError(
                    f"quaver::{self.op}: {name} must be on the mesh of {first}, {meshes[first]}, got {mesh}"
                )
        return meshes[first]

    def _distributed(self, name, tensor):
        if isinstance(tensor, DTensor):
            return tensor
        if tensor.numel() != 1:  # a single parameter is the same for all
            raise RuntimeError(
                f"quaver::{self.op}: {name} must be a DTensor like the other tensors, got a torch.Tensor of the shape "
                f"{list(tensor.shape)}: see torch.distributed.tensor.distribute_tensor"
            )
        return DTensor.from_local(tensor, self.mesh, [WHOLE] * self.mesh.ndim, run_check=False)

    def __getitem__(self, name):
        if name in self.arguments:
            return self.arguments[name]
        return next(each.default_value for each in self.overload._schema.arguments if each.name == name)

    def is_cut(self, name, dim, over):
        """Whether a tensor's dimension `dim` lies in parts over this dimension of the mesh."""
        tensor = self[name]
        return tensor.placements[over] == Shard(dim % max(tensor.dim(), 1))

    def key(self):
        """What decides how a call is carried out: everything but the numbers in its tensors."""

        def word(value):
            if isinstance(value, DTensor):
                return value.shape, value.stride(), value.dtype, value.placements
            return tuple(value) if isinstance(value, list) else value

        deciding = ((name, word(value)) for name, value in self.arguments.items() if name != "seed")
        return self.overload, self.mesh, tuple(deciding)


class Choice:
    """How each tensor of a call, and each result, lies over one dimension of a mesh.

    None for a tensor: as it is if it has the parts' own sums, else not given. `joined`: what the devices along this
    dimension have to join on their way: "range", "sum".
    """

    def __init__(self, tensors, results, joined=()):
        self.tensors = tensors
        self.results = results
        self.joined = joined

    def bytes_moved(self, call, over):
        return sum(_bytes_moved(tensor, over, self.tensors[name]) for name, tensor in call.tensors.items())


def _bytes_moved(tensor, over, wanted):
    """What the devices must send of a tensor to have it as wanted: a measure to choose by."""
    held = tensor.placements[over]
    if held == wanted or wanted is None or (held == WHOLE and wanted.is_shard()):
        return 0
    return tensor.numel() * tensor.element_size() * (2 if held.is_partial() else 1)


# The choices of each op.


def _beside(tensor, dim, size):
    """How a tensor lies whose dimensions are aligned with others' at the last, where `dim` (negative) of those is cut.

    None where it cannot be cut there.
    """
    if tensor.numel() == 1 or tensor.dim() < -dim or tensor.shape[dim] == 1:
        return WHOLE
    return Shard(tensor.dim() + dim) if tensor.shape[dim] == size else None


def _everywhere(call):
    """The choice that every op has: all devices have all and do the same."""
    return Choice(dict.fromkeys(call.tensors, WHOLE), [WHOLE] * len(call.overload._schema.returns))


def _along(call, dim, size, tensors, results):
    """A choice in which dimension `dim` of some tensors is cut and the others are whole; None where it cannot be."""
    if size == 1:
        return None
    places = dict.fromkeys(call.tensors, WHOLE)
    for name in tensors:
        if name in places:
            places[name] = _beside(call[name], dim, size)
            if places[name] is None:
                return None
    return Choice(places, results)


def _cuts(call, whole, tensors, ranks, dims=None):
    """The choices in which one of whole's dimensions is cut, and those of `tensors` with it; results have `ranks`."""
    for dim in range(-whole.dim(), 0) if dims is None else dims:
        choice = _along(call, dim, whole.shape[dim], tensors, [Shard(rank + dim) for rank in ranks])
        if choice is not None:
            yield choice


def _is_cut_evenly(blocks, size, mesh):
    """Whether every device gets whole blocks, however many of the mesh's dimensions cut there."""
    return blocks in (1, size) or blocks % mesh.size() == 0


def _elementwise(call, over):
    name = "q" if call.op == "dequantize" else "x"
    x, scale = call[name], call["scale"]
    if name == "x" and call["mode"] == "stochastic":  # an element's number draws for it, and parts count anew
        return
    for dim in range(-x.dim(), 0):
        if scale.numel() == 1:
            parameters = WHOLE
        elif scale.dim() != x.dim() or not _is_cut_evenly(scale.shape[dim], x.shape[dim], call.mesh):
            continue
        else:
            parameters = WHOLE if scale.shape[dim] == 1 else Shard(scale.dim() + dim)
        places = dict.fromkeys(call.tensors, parameters)
        places[name] = Shard(x.dim() + dim)
        yield Choice(places, [Shard(x.dim() + dim)])


def _ranges(call, over):
    """Of blocks' ranges: a block is one device's, or its elements lie on several."""
    x, blocks = call["x"], call["scale_shape"]
    of_one = len(blocks) != x.dim()
    for dim in range(x.dim()):
        own = not of_one and blocks[dim] != 1 and _is_cut_evenly(blocks[dim], x.shape[dim], call.mesh)
        across = (of_one or blocks[dim] == 1) and call.is_cut("x", dim, over) and _is_joinable(x, blocks)
        if own or across:
            yield Choice({"x": Shard(dim)}, *_of_ranges(call, dim, own))


def _of_ranges(call, dim, own):
    """(results, what is joined) where x's dimension `dim` is cut and blocks are devices' own or not."""
    joined = [] if own else ["range"]
    parameters = [Shard(dim) if own else WHOLE] * 2
    if call.op == "choose_qparams":
        return parameters, joined
    if not call["return_row_sum"]:
        return [Shard(dim), *parameters, WHOLE], joined
    if dim == call["x"].dim() - 1:
        return [Shard(dim), *parameters, WHOLE], [*joined, "sum"]
    return [Shard(dim), *parameters, Shard(dim)], joined


def _is_joinable(x, blocks):
    """Whether blocks are whole along each dimension or have one element there."""
    if len(blocks) != x.dim():
        return True  # of one element
    return all(count in (1, size) for count, size in zip(blocks, x.shape, strict=True))


def _rows(call, over):
    """Of whole rows: any dimension but the last."""
    x = call["x" if call.op == "rms_norm_quantize" else "gate"]
    for choice in _cuts(call, x, ("x", "residual", "gate", "up"), [x.dim()] * 5, range(-x.dim(), -1)):
        results = choice.results[: len(call.overload._schema.returns)]
        if not call["return_row_sum"]:
            results[3] = WHOLE
        if call.op == "rms_norm_quantize" and call["residual"] is None:
            results[4] = WHOLE
        yield Choice(choice.tensors, results)


def _matmul(call, over):
    """Any dimension of the result; and K, whose parts' sums are then added."""
    a, b = call["a"], call["b"]
    rank = max(a.dim(), b.dim())
    of_rows = ("a", "a_scale", "a_zero_point", "a_sum")
    of_columns = ("b", "b_scale", "b_zero_point", "b_sum", "bias", "out_scale", "out_zero_point")
    for dim in range(-rank, 0):
        if dim == -1:
            choice = _along(call, dim, b.shape[-1], of_columns, [Shard(rank - 1)])
        elif dim == -2:
            choice = _along(call, dim, a.shape[-2], of_rows, [Shard(rank - 2)])
        else:
            sizes = [each.shape[dim] for each in (a, b) if each.dim() >= -dim]
            size = next((each for each in sizes if each != 1), 1)
            choice = _along(call, dim, size, of_rows + of_columns, [Shard(rank + dim)])
        if choice is not None:
            yield choice
    if call.is_cut("a", -1, over) or call.is_cut("b", -2, over):
        places = dict.fromkeys(call.tensors, WHOLE)
        places |= {"a": Shard(a.dim() - 1), "b": Shard(b.dim() - 2)}
        places |= {name: None for name in SUMS if name in places}
        yield Choice(places, [ADDED]) if call.op == "int8_matmul" else Choice(places, [WHOLE], ["sum"])


def _last_stage(call, over):
    yield from _cuts(call, call["acc"], call.tensors, [call["acc"].dim()])


def _linear(call, over):
    """Any dimension of x but the last; the weight's outputs; and K."""
    x, weight = call["x"], call["weight_q"]
    yield from _cuts(call, x, ("x",), [x.dim()], range(-x.dim(), -1))
    outputs = dict.fromkeys(call.tensors, Shard(0)) | {"x": WHOLE}
    if call["weight_scale"].numel() == 1:
        outputs["weight_scale"] = WHOLE
    yield Choice(outputs, [Shard(x.dim() - 1)])
    if call.is_cut("x", -1, over) or call.is_cut("weight_q", -1, over):
        places = dict.fromkeys(call.tensors, WHOLE)
        places |= {"x": Shard(x.dim() - 1), "weight_q": Shard(weight.dim() - 1)}
        places |= {name: None for name in SUMS if name in places}
        yield Choice(places, [WHOLE], ["range", "sum"])


def _conv2d(call, over):
    """Images; and outputs, where they are not of groups."""
    yield Choice(dict.fromkeys(call.tensors, WHOLE) | {"x": Shard(0)}, [Shard(0)])
    if call["groups"] == 1:
        places = dict.fromkeys(call.tensors, WHOLE) | {"weight": Shard(0)}
        if call["weight_scale"].numel() != 1:
            places["weight_scale"] = Shard(0)
        if "bias" in places:
            places["bias"] = Shard(0)
        yield Choice(places, [Shard(1)])


def _none(call, over):
    return ()


CHOICES = {
    "choose_qparams": _ranges,
    "quantize": _elementwise,
    "dynamic_quantize": _ranges,
    "rms_norm_quantize": _rows,
    "silu_mul_quantize": _rows,
    "int8_matmul": _matmul,
    "int8_matmul_dequantize": _matmul,
    "int8_matmul_requantize": _matmul,
    "rescale": _last_stage,
    "requantize": _last_stage,
    "dequantize": _elementwise,
    "fake_quantize": _elementwise,
    "fake_quantize_mask": _elementwise,
    "int8_linear": _linear,
    "int8_conv2d": _conv2d,
    "int8_prepack": _none,
}


# How a call is carried out.


class Plan:
    """Of all calls with one key: how tensors and results lie, what is joined over which dimensions of the mesh."""

    def __init__(self, call):
        self.expected = [(each.shape, each.stride(), each.dtype) for each in _results_of_whole(call)]
        choices = []
        for over in range(call.mesh.ndim):
            possible = [_everywhere(call), *CHOICES[call.op](call, over)]
            choices.append(min(possible, key=lambda choice: choice.bytes_moved(call, over)))
        self.placements = {name: self._of_tensor(call.tensors[name], name, choices) for name in call.tensors}
        self.results = []
        for index, (shape, *_) in enumerate(self.expected):
            is_none = shape == (0,) and call.op in ("dynamic_quantize", "rms_norm_quantize", "silu_mul_quantize")
            self.results.append([WHOLE if is_none and index > 2 else choice.results[index] for choice in choices])
        self.joined = {
            what: [over for over, choice in enumerate(choices) if what in choice.joined] for what in ("range", "sum")
        }

    @staticmethod
    def _of_tensor(tensor, name, choices):
        wanted = [choice.tensors[name] for choice in choices]
        if any(want is None and held != ADDED for want, held in zip(wanted, tensor.placements, strict=True)):
            return None
        return tuple(ADDED if want is None else want for want in wanted)


def _results_of_whole(call):
    """What the call gives for whole tensors, without their data. Refuses what does not fit."""

    def without_data(value):
        if not isinstance(value, DTensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

    return as_tuple(call.overload(**{name: without_data(value) for name, value in call.arguments.items()}))


class _Keyed:
    """A call as its key alone: what a cache compares. A plan is made from the call that came first."""

    def __init__(self, call):
        self.call = call
        self.key = call.key()
        self.hash = hash(self.key)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return self.key == other.key


@lru_cache(maxsize=4096)
def _kept_plan(keyed):
    plan = Plan(keyed.call)
    keyed.call = None  # its tensors are not kept
    return plan


def _plan(call):
    try:
        return _kept_plan(_Keyed(call))
    except TypeError:  # a compiler's sizes cannot be compared beforehand
        return Plan(call)


class Parts:
    """What one device has of a call: its arguments by name, its part of each tensor."""

    def __init__(self, call, plan):
        self.call, self.plan = call, plan
        self.arguments = dict(call.arguments)
        for name, tensor in call.tensors.items():
            placements = plan.placements[name]
            if placements is None:
                self.arguments[name] = None
                continue
            if tensor.placements != placements:
                tensor = tensor.redistribute(placements=placements)
            self.arguments[name] = tensor.to_local()
        if "scale_shape" in self.arguments:
            self.arguments["scale_shape"] = self._own_blocks()
        self.packed = {name: self._own_packed(packed) for name, packed in call.packed.items()}

    def __getitem__(self, name):
        return self.arguments[name] if name in self.arguments else self.call[name]

    def _own_blocks(self):
        blocks, x = self.call["scale_shape"], self.call["x"]
        if len(blocks) != x.dim():
            return blocks
        sizes = zip(blocks, x.shape, self["x"].shape, strict=True)
        return [count if count == 1 or size == 0 else count * own // size for count, size, own in sizes]

    def _own_packed(self, packed):
        """The packed weight of this device's part of the weight; none where it is of another part."""
        (weight,) = (name for name in WEIGHTS if name in self.call.tensors)
        placements = self.plan.placements[weight]
        if isinstance(packed, DTensor):
            return packed.to_local() if {*packed.placements, *placements} == {WHOLE} else None
        return packed if placements == self.call.tensors[weight].placements else None

    def options(self, *left_out):
        return {name: value for name, value in self.arguments.items() if name not in left_out}

    def join(self, tensor, what, by):
        """The devices' sums added, or the highest of their numbers."""
        over = self.plan.joined[what]
        if not over:
            return tensor
        apart = [Partial(by) if each in over else WHOLE for each in range(self.call.mesh.ndim)]
        held = DTensor.from_local(tensor, self.call.mesh, apart, run_check=False)
        return held.redistribute(placements=[WHOLE] * self.call.mesh.ndim).to_local()


def _alone(parts):
    return parts.call.overload(**parts.arguments, **parts.packed)


def _parameters(parts, x, blocks, **options):
    """Scales and zero points: extremes on each device, then those of all, and parameters from them."""
    if not parts.plan.joined["range"]:
        return _ops.choose_qparams(x, blocks, **options)
    finite = torch.nan_to_num(x.to(torch.float32), 0.0, 0.0, 0.0)
    folded = [dim for dim in range(x.dim()) if len(blocks) != x.dim() or blocks[dim] == 1]
    if finite.numel() == 0:
        ends = finite.new_zeros((*(1 if dim in folded else size for dim, size in enumerate(x.shape)), 2))
    else:
        ends = torch.stack([-finite.amin(folded, keepdim=True), finite.amax(folded, keepdim=True)], -1)
    low, high = parts.join(ends.reshape(-1, 2), "range", "max").unbind(-1)
    ends = torch.stack([-low, high], -1)
    return tuple(each.reshape(blocks) for each in _ops.choose_qparams(ends, [len(ends), 1], **options))


def _choose_qparams(parts):
    return _parameters(parts, parts["x"], parts["scale_shape"], **parts.options("x", "scale_shape", "return_row_sum"))


def _dynamic_quantize(parts):
    call = parts.call
    dtype = parts.plan.expected[0][2]
    scale, zero_point = _choose_qparams(parts)
    low, high = qparams_range(dtype, call["symmetric"], call["q_min"], call["q_max"])
    q = _ops.quantize(parts["x"], scale, zero_point, q_min=low, q_max=high, dtype=dtype)
    if not call["return_row_sum"]:
        return q, scale, zero_point, zero_point.new_empty(0)
    return q, scale, zero_point, parts.join(q.sum(-1, keepdim=True, dtype=torch.int32), "sum", "sum")


def _matmul_in_parts(parts):
    product = ("a", "b", "a_zero_point", "b_zero_point", "a_sum", "b_sum")
    acc = _ops.int8_matmul(**{name: parts.arguments.get(name) for name in product}, **parts.packed)
    last_stage = _ops.rescale if parts.call.op == "int8_matmul_dequantize" else _ops.requantize
    return last_stage(parts.join(acc, "sum", "sum"), **parts.options(*product))


def _linear_in_parts(parts):
    call = parts.call
    x, weight, weight_sum, scale = (parts[name] for name in ("x", "weight_q", "weight_sum", "weight_scale"))
    rows = x.unsqueeze(0) if x.dim() == 1 else x
    symmetric = call["symmetric"]
    x_scale, zero_point = _parameters(parts, rows, [*rows.shape[:-1], 1], symmetric=symmetric)
    low, high = qparams_range(torch.int8, symmetric, None, None)
    acc = _ops.int8_matmul(
        _ops.quantize(rows, x_scale, zero_point, q_min=low, q_max=high),
        weight.mT,
        a_zero_point=None if symmetric else zero_point,
        b_sum=None if weight_sum is None else weight_sum.mT,
        b_packed=parts.packed.get("weight_packed"),
    )
    y = _ops.rescale(
        parts.join(acc, "sum", "sum"),
        x_scale,
        scale if scale.numel() == 1 else scale.mT,
        bias=parts["bias"],
        relu=call["relu"],
        dtype=parts.plan.expected[0][2],
    )
    return y.squeeze(0) if x.dim() == 1 else y


JOINING = {
    "choose_qparams": _choose_qparams,
    "dynamic_quantize": _dynamic_quantize,
    "int8_matmul_dequantize": _matmul_in_parts,
    "int8_matmul_requantize": _matmul_in_parts,
    "int8_linear": _linear_in_parts,
}


def _dispatch(cls, overload, types, args, kwargs):
    """What torch calls in place of an op some of whose tensors are DTensors."""
    call = Call(overload, args, kwargs or {})
    plan = _plan(call)
    if call.mesh.get_coordinate() is None:  # this process has no part in it
        results = [torch.empty(0, dtype=dtype, device=call.mesh.device_type) for _, _, dtype in plan.expected]
    else:
        run = JOINING[call.op] if any(plan.joined.values()) else _alone
        results = as_tuple(run(Parts(call, plan)))
    made = tuple(
        DTensor.from_local(own, call.mesh, placements, run_check=False, shape=shape, stride=stride)
        for own, placements, (shape, stride, _) in zip(results, plan.results, plan.expected, strict=True)
    )
    return made[0] if len(made) == 1 else made


def _refuse_out(cls, overload, types, args, kwargs):
    raise NotImplementedError(f"{overload.name()}: DTensors cannot be written: call the op without out=")


for _op in (*OPS, *CPU_OPS):
    torch.library.register_torch_dispatch(f"{NAMESPACE}::{_op}", DTensor, _dispatch)
for _op in WRITING_OPS:
    torch.library.register_torch_dispatch(f"{NAMESPACE}::{_op}.out", DTensor, _refuse_out)

"""What the int8 modules share: a state that keeps its bits, parameters among it, and a packed weight beside it."""

import torch

from quaver import ops
from quaver.qparams import QuantizationParams, full_range


class Int8Module(torch.nn.Module):
    """A module whose state is codes and their parameters: plain tensors that no conversion of dtype changes.

    `.half()`, `.bfloat16()`, `.double()` and `.to(dtype)` say something to the float model around it: a scale rounded
    to float16 would make another weight. Other devices it follows.

    Beside the state there is `config()`, what JSON can hold of the constructor's arguments: `from_config` makes of it a
    module whose state has the same names, shapes and dtypes, and other values. `float_type` is the torch module in
    whose place it stands.
    """

    float_type = None

    def __init__(self):
        super().__init__()
        self._packed = None
        self._packed_from = None  # the weight that it is a copy of, and that weight's version
        self._ranges = {}  # of the parameters among the state: (q_min, q_max, symmetric)

    def _held(self, *names):
        """Parts of the state, in a tenth of the time that attributes of a module take."""
        buffers = self._buffers
        return [buffers[name] if name in buffers else getattr(self, name) for name in names]

    # Parameters of activations, whose scale and zero point are state.

    def _hold_params(self, name, params, device):
        """`<name>_scale` and `<name>_zero_point`; neither where there are no parameters."""
        if params is None:
            return
        self._ranges[name] = (params.q_min, params.q_max, params.symmetric)
        self.register_buffer(f"{name}_scale", params.scale.detach().reshape(1).clone().to(device))
        self.register_buffer(f"{name}_zero_point", params.zero_point.detach().reshape(1).clone().to(device))

    def _held_params(self, name):
        held = self._ranges.get(name)
        if held is None:
            return None
        return QuantizationParams(*self._held(f"{name}_scale", f"{name}_zero_point"), *held)

    def _more_repr(self):
        """What a layer says of its result and of parameters that it holds, where there is something to say."""
        words = [", relu=True"] if self.relu else []
        for name, (*_, symmetric) in self._ranges.items():
            words.append(f", {name}={'symmetric' if symmetric else 'asymmetric'}")
        return "".join(words)

    # The packed weight.

    def _packed_weight(self):
        """`int8_prepack` of weight_q, as the matrix of its product, as of now; None where none is used."""
        (weight,) = self._held("weight_q")
        if not weight.is_cpu:
            return None
        if torch.compiler.is_compiling():
            return self._packed
        stamps = _stamps(weight)
        if self._packed is None or self._packed_from[0] is not weight or self._packed_from[1] != stamps:
            matrix = self._matrix()
            packed = ops.int8_prepack(matrix.to_local() if hasattr(matrix, "to_local") else matrix)
            if type(packed) is not torch.Tensor:  # a fake one, of a tracer
                return None
            self._packed, self._packed_from = packed, (weight, stamps)
        return self._packed

    def _forget_packed(self):
        self._packed = self._packed_from = None

    def __getstate__(self):
        return {**super().__getstate__(), "_packed": None, "_packed_from": None}

    def _save_to_state_dict(self, *args, **kwargs):
        if hasattr(getattr(self, "weight_q", None), "to_local"):
            self._forget_packed()  # who asks may write a DTensor's part, and leave no trace
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self._forget_packed()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn, recurse=True):
        """What every conversion of a module goes through: it sees float32 as int32, so it moves bits and casts none."""

        def keeping_bits(tensor):
            if tensor.dtype != torch.float32:
                return fn(tensor)
            return fn(tensor.view(torch.int32)).view(torch.float32)

        self._forget_packed()
        return super()._apply(keeping_bits, recurse)


def _stamps(weight):
    """What changes when a weight does in place: its version and, of one that wraps another, that one's."""
    stamp = None if weight.is_inference() else weight._version
    own = getattr(weight, "_local_tensor", None) if type(weight) is not torch.Tensor else None
    return stamp if own is None else (stamp, _stamps(own))


def check_activation_params(name, params):
    """Codes between layers are int8, and one scale serves a tensor whatever its shape."""
    if params is None:
        return
    if not isinstance(params, QuantizationParams):
        raise TypeError(f"{name} must be QuantizationParams or None, got {type(params).__name__}")
    low, high = full_range(torch.int8)
    if params.scale.numel() != 1:
        raise ValueError(f"{name} must be per tensor, got scales of the shape {list(params.scale.shape)}")
    if not low <= params.q_min < params.q_max <= high:
        raise ValueError(f"{name} must be for int8 codes, got the range {params.q_min}..{params.q_max}")


def quantized_weight(weight, granularity, params):
    """(weight_q, weight_scale): a float weight as symmetric codes, by its own range or by `params`."""
    weight = weight.detach()
    if params is None:
        params = ops.choose_qparams(weight, granularity)
    elif not params.symmetric:
        raise ValueError("the parameters of a weight must be symmetric, got asymmetric ones")
    return ops.quantize(weight, params), params.scale.clone()


def float_bias(bias):
    """A float layer's bias as the products take it."""
    return None if bias is None else bias.detach().to(torch.float32).clone()

"""Observers: they see tensors and then say which scale and zero point to quantize such tensors with.

    observer.observe(x), any number of times;   params = observer.qparams()

They differ in the range that they choose for each block; what becomes of a range is `quaver.choose_qparams`'s, equation
(4). What an observer remembers depends on the values seen (and, for MovingAverage, on the order of the batches) and on
nothing else: two observers that saw parts of the data can be joined, by `merge` or across processes by `all_reduce`,
and have the bits of one that saw all of it.

>>> import torch, quaver
>>> observer = quaver.observers.MinMax(granularity=quaver.PerChannel(1))
>>> for batch in torch.tensor([[[1.0, -2.54]], [[-1.27, 0.5]]]):
...     observer.observe(batch)
>>> observer.qparams().scale
tensor([[0.0100, 0.0200]])
"""

import math
from copy import copy
from dataclasses import dataclass

import torch
from torch import distributed

from quaver import ops
from quaver.arguments import aimed_range, check_bools, check_granularity, checked_eps, refuse_tangent, tensor_of
from quaver.entropy import best_reach, kept_bins
from quaver.histogram import Grid, chosen, count_below, halving_sum, real_range
from quaver.qparams import PerTensor, PerToken, QuantizationParams

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LARGEST = torch.finfo(torch.float32).max
MOST_BINS = 2**16
COUNTS = ("count", "nan_count", "infinite_count")  # of all blocks together


@dataclass(eq=False, kw_only=True)
class Observer:
    """What all observers share; one of its own chooses the range of each block.

    Arguments, for all observers by keyword:
        granularity: PerTensor(), PerChannel(axis), PerToken() or PerGroup(size). Every tensor must give the same shape
            of the scale; with PerTensor(), tensors may have any shapes.
        symmetric, dtype, q_min, q_max, eps: those of quaver.choose_qparams.

    NaN and infinities are counted and otherwise left out.

    Raises:
        TypeError or ValueError for an argument that does not fit.
    """

    granularity: object = PerTensor()
    symmetric: bool = True
    dtype: torch.dtype = torch.int8
    q_min: int | None = None
    q_max: int | None = None
    eps: float | None = None

    def __post_init__(self):
        check_granularity(self._name, self.granularity)
        check_bools(self._name, symmetric=self.symmetric)
        self.q_min, self.q_max = aimed_range(self._name, self.dtype, self.symmetric, self.q_min, self.q_max)
        self.eps = checked_eps(self._name, self.eps)
        self.reset()

    @property
    def _name(self):
        return f"observers.{type(self).__name__}"

    def _error(self, error, words):
        return error(f"quaver::{self._name}: {words}")

    def _number(self, name, value):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._error(TypeError, f"{name} must be a number, got {type(value).__name__}")
        return float(value)

    def _check_int(self, name, value, least, most):
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._error(TypeError, f"{name} must be an int, got {type(value).__name__}")
        if not least <= value <= most:
            raise self._error(ValueError, f"{name} must lie within {least}..{most}, got {value}")

    # What an observer of its own defines. States are dictionaries of tensors, which are never changed in place.

    def _of(self, x, finite):
        """The state after x, float32 [blocks, elements], of which only elements that are `finite` count."""
        raise NotImplementedError

    def _joined(self, first, second):
        """The state after what led to the one and then what led to the other."""
        raise NotImplementedError

    def _range(self, state):
        """(lo, hi), float32 [blocks]; what is not finite stands for a block in which nothing was."""
        raise NotImplementedError

    # The protocol.

    def reset(self):
        """Forgets everything that was seen."""
        self._scale_shape = None
        self._state = None

    @torch.no_grad()
    def observe(self, x):
        """Takes x into account. It waits for no device, and no shape in it depends on x's values.

        Arguments:
            x: float32, float16 or bfloat16, any shape and strides, on the device of the tensors before; it may require
                grad, and may be empty.

        Raises:
            RuntimeError for a dtype or a device, TypeError for what is no tensor, ValueError for a shape that gives
            another shape of the scale than those before.
        """
        refuse_tangent(self._name, "x", tensor_of(self._name, "x", x))
        if x.dtype not in FLOAT_DTYPES:
            dtype = str(x.dtype).removeprefix("torch.")
            raise self._error(RuntimeError, f"x must be float32, float16 or bfloat16, got {dtype}")
        scale_shape = self._scale_shape_for(x)
        if self._state is not None:
            self._check_scale_shape("x's shape", scale_shape)
            if x.device != self.device:
                raise self._error(
                    RuntimeError, f"x must be on {self.device}, as what was seen before, got one on {x.device}"
                )
        real = _in_blocks(x, scale_shape).to(torch.float32)
        finite = torch.isfinite(real)
        count, nan_count = finite.sum(), torch.isnan(real).sum()
        counts = {"count": count, "nan_count": nan_count, "infinite_count": x.numel() - count - nan_count}
        self._add(scale_shape, counts | self._of(real, finite))

    def _scale_shape_for(self, x):
        return (1,) if self.granularity == PerTensor() else self.granularity.scale_shape(x.shape)

    def _check_scale_shape(self, whose, scale_shape):
        if scale_shape != self._scale_shape:
            raise self._error(
                ValueError,
                f"{whose} must give the scale the shape {list(self._scale_shape)}, as before, got {list(scale_shape)}",
            )

    def _add(self, scale_shape, state):
        if self._state is not None:
            counts = {name: self._state[name] + state[name] for name in COUNTS}
            state = counts | self._joined(self._state, state)
        self._scale_shape, self._state = scale_shape, state

    @torch.no_grad()
    def chosen_range(self):
        """(lo, hi), float32 in the scale's shape: the range that qparams() turns into a scale and a zero point.

        Raises:
            RuntimeError if nothing was observed.
        """
        return tuple(
            torch.where(torch.isfinite(end), end, torch.zeros_like(end)).reshape(self._scale_shape)
            for end in self._range(self._what_was_seen())
        )

    def _what_was_seen(self):
        if self._state is None:
            raise self._error(RuntimeError, "nothing was observed yet: call observe(x) first")
        return self._state

    @torch.no_grad()
    def qparams(self):
        """The QuantizationParams of the chosen range, by equation (4), in the granularity's shape; [1] per tensor.

        A block in which nothing finite was seen has the parameters of a block of zeros.

        Raises:
            RuntimeError if nothing was observed.
        """
        params = self._params(*(end.flatten() for end in self.chosen_range()))
        return QuantizationParams(
            params.scale.reshape(self._scale_shape),
            params.zero_point.reshape(self._scale_shape),
            params.q_min,
            params.q_max,
            params.symmetric,
        )

    def _params(self, lo, hi):
        """Those of ranges [blocks], [blocks, 1]: the ends of a range are a row."""
        return ops.choose_qparams(
            torch.stack([lo, hi], dim=1),
            PerToken(),
            symmetric=self.symmetric,
            dtype=self.dtype,
            q_min=self.q_min,
            q_max=self.q_max,
            eps=self.eps,
        )

    @property
    def count(self):
        """How many finite elements were seen, int64 on the data's device."""
        return self._counted("count")

    @property
    def nan_count(self):
        """How many elements were NaN, int64 on the data's device."""
        return self._counted("nan_count")

    @property
    def infinite_count(self):
        """How many elements were infinite, int64 on the data's device."""
        return self._counted("infinite_count")

    def _counted(self, name):
        return torch.zeros((), dtype=torch.int64) if self._state is None else self._state[name]

    @property
    def device(self):
        """Where the tensors were that it has seen, or None."""
        return None if self._state is None else self._state["count"].device

    # Several observers.

    @torch.no_grad()
    def merge(self, other):
        """Adds what another has seen, as if this one had seen it after its own; the other stays as it is.

        The other's state is brought to this one's device. MovingAverage depends on the order, the others do not.

        Raises:
            TypeError for another kind of observer, ValueError for another configuration or shape of the scale.
        """
        if type(other) is not type(self):
            raise self._error(TypeError, f"other must be a {type(self).__name__} too, got {type(other).__name__}")
        self._merge(other.state_dict())

    def _merge(self, saved):
        scale_shape, state = self._read(saved)
        if state is None:
            return
        if self._state is not None:
            self._check_scale_shape("the other's shape", scale_shape)
            state = _on(self.device, state)
        self._add(scale_shape, state)

    @torch.no_grad()
    def all_reduce(self, group=None):
        """Gives every process of a torch.distributed group the state of one that saw rank 0's data, then rank 1's, ...

        To the bit, whatever the backend: the states themselves are exchanged. A process that has seen nothing takes
        part; its state will be where the others' is: on its current device of that kind. Each process receives all
        states (for a histogram 8 bytes a bin and block). Calling it a second time adds up the sums.

        Arguments:
            group: a process group, by default that of all processes; one outside of it keeps what it has.

        Raises:
            ValueError, in every process, if they are not configured alike or have scales of different shapes.
        """
        if distributed.get_rank(group) < 0:
            return
        gathered = [None] * distributed.get_world_size(group)
        kind = None if self.device is None else self.device.type
        distributed.all_gather_object(gathered, (kind, _on("cpu", self.state_dict())), group=group)
        together = copy(self)
        together.reset()
        for _, saved in gathered:
            together._merge(saved)
        kinds = [kind for kind, _ in gathered if kind is not None]
        if kinds:
            device = self.device or torch.empty(0, device=kinds[0]).device
            self._scale_shape, self._state = together._scale_shape, _on(device, together._state)

    # Keeping them.

    def state_dict(self):
        """All that it has seen, as a plain dictionary of tensors, numbers and strings, which torch.save can write."""
        shape = None if self._scale_shape is None else list(self._scale_shape)
        return {"observer": repr(self), "scale_shape": shape, **(self._state or {})}

    def load_state_dict(self, state):
        """Takes over what another of the same kind and configuration has seen, in place of its own.

        Raises:
            ValueError for the state of another kind or configuration.
        """
        self._scale_shape, self._state = self._read(state)

    def _read(self, saved):
        """(shape of the scale, state), both None where nothing was seen."""
        if not isinstance(saved, dict) or "observer" not in saved:
            raise self._error(TypeError, f"a state must be what state_dict() gives, got {type(saved).__name__}")
        if saved["observer"] != repr(self):
            raise self._error(ValueError, f"a state must be of {self!r}, got one of {saved['observer']}")
        state = {name: part for name, part in saved.items() if name not in ("observer", "scale_shape")}
        return (tuple(saved["scale_shape"]), state) if state else (None, None)


def _in_blocks(x, scale_shape):
    """x as [blocks, elements], for the shape of a scale."""
    if math.prod(scale_shape) == 1:
        return x.reshape(1, x.numel())
    pairs = list(zip(scale_shape, x.shape, strict=True))
    parts = [part for count, size in pairs for part in (count, size // max(count, 1))]
    outer, inner = range(0, len(parts), 2), range(1, len(parts), 2)
    blocks = math.prod(scale_shape)
    return x.reshape(parts).permute(*outer, *inner).reshape(blocks, x.numel() // max(blocks, 1))


def _on(device, value):
    """What a state is made of, with its tensors on the device."""
    if isinstance(value, dict):
        return {name: _on(device, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_on(device, part) for part in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _range_of(x, finite):
    """The least and the largest finite element of each block, float32 [blocks]; inf and -inf where there is none.

    -0 becomes 0: which of the two is the lesser depends on where they stand.
    """
    if x.shape[1] == 0:
        return tuple(torch.full((len(x),), end, device=x.device) for end in (math.inf, -math.inf))
    return torch.where(finite, x, math.inf).amin(1) + 0.0, torch.where(finite, x, -math.inf).amax(1) + 0.0


def _joined_range(first, second):
    return {"lo": torch.minimum(first["lo"], second["lo"]), "hi": torch.maximum(first["hi"], second["hi"])}


def _range_in(state):
    return state["lo"], state["hi"]


@dataclass(eq=False, kw_only=True)
class MinMax(Observer):
    """The whole range of what was seen: nothing is clipped, and one outlier takes the codes of the rest.

    Its parameters are those of quaver.choose_qparams for all data at once, to the bit.

    Arguments: those of Observer.

    >>> import torch, quaver
    >>> observer = quaver.observers.MinMax()
    >>> observer.observe(torch.tensor([0.5, -1.27, float("nan")]))
    >>> observer.observe(torch.tensor([[2.54], [0.1]]))
    >>> observer.qparams().scale
    tensor([0.0200])
    >>> observer.count, observer.nan_count
    (tensor(4), tensor(1))
    """

    def _of(self, x, finite):
        lo, hi = _range_of(x, finite)
        return {"lo": lo, "hi": hi}

    def _joined(self, first, second):
        return _joined_range(first, second)

    def _range(self, state):
        return _range_in(state)


@dataclass(eq=False)
class MovingAverage(Observer):
    """An average of the batches' ranges, in which older batches fade: a rare outlier counts for little.

    lo = lo + momentum * (batch's lo - lo), and hi alike, in float32, from the first batch's on. A batch with nothing
    finite in a block leaves the block's range as it is. The ranges of all batches are kept, 8 bytes a batch and block,
    so that joining observers is exact.

    Arguments: those of Observer, and
        momentum: the weight of the newest batch, above 0 and at most 1.

    Source: torch.ao.quantization.MovingAverageMinMaxObserver, whose bits it has for finite data.

    >>> import torch, quaver
    >>> observer = quaver.observers.MovingAverage(momentum=0.5)
    >>> for largest in (127.0, 381.0):
    ...     observer.observe(torch.tensor([0.0, largest]))
    >>> observer.qparams().scale
    tensor([2.])
    """

    momentum: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        self.momentum = self._number("momentum", self.momentum)
        if not 0 < self.momentum <= 1:
            raise self._error(ValueError, f"momentum must be above 0 and at most 1, got {self.momentum}")

    def _of(self, x, finite):
        return {"history": [torch.stack(_range_of(x, finite))]}

    def _joined(self, first, second):
        return {"history": first["history"] + second["history"]}

    def _range(self, state):
        average, *later = state["history"]
        for batch in later:
            average = torch.where(torch.isfinite(average), self._mixed(average, batch), batch)
        return average[0], average[1]

    def _mixed(self, average, batch):
        step = batch - average
        mixed = average + self.momentum * step
        # Two ends of different signs can be further apart than float32 reaches, but not what lies between them.
        mixed = torch.where(torch.isfinite(step), mixed, (average - self.momentum * average) + self.momentum * batch)
        return torch.where(torch.isfinite(batch), mixed, average)


@dataclass(eq=False)
class FixedRange(Observer):
    """A range that is given, whatever the data: values beyond it are meant to be clipped.

    Arguments: those of Observer, and
        lo, hi: the range, lo < hi. By equation (4), codes reach to max(|lo|, |hi|) on both sides if they are symmetric,
            and otherwise from min(lo, 0) to max(hi, 0).

    Source: the notebooks' outlier, whose range is clipped to 5.

    >>> import torch, quaver
    >>> x = torch.tensor([0.25, -0.6, 256.0])
    >>> observer = quaver.observers.FixedRange(-5, 5)
    >>> observer.observe(x)
    >>> quaver.quantize(x, observer.qparams())
    tensor([  6, -15, 127], dtype=torch.int8)
    """

    lo: float
    hi: float

    def __post_init__(self):
        super().__post_init__()
        self.lo, self.hi = self._number("lo", self.lo), self._number("hi", self.hi)
        if not -LARGEST <= self.lo < self.hi <= LARGEST:
            raise self._error(ValueError, f"lo must be below hi, and both finite float32, got {self.lo} and {self.hi}")

    def _of(self, x, finite):
        return {}

    def _joined(self, first, second):
        return {}

    def _range(self, state):
        blocks = math.prod(self._scale_shape)
        return tuple(torch.full((blocks,), end, dtype=torch.float32, device=self.device) for end in (self.lo, self.hi))


@dataclass(eq=False, kw_only=True)
class HistogramObserver(Observer):
    """What the observers share that count values in bins.

    The bins of a block are `bins` neighbours of a width that is a power of 2, the least with which they hold all that
    was seen (python/quaver/histogram.py says how). A block takes 8 bytes for each.

    Arguments: those of Observer, and
        bins: how many, 2 to 65,536.
    """

    bins: int = 2048

    def __post_init__(self):
        super().__post_init__()
        self._check_int("bins", self.bins, 2, MOST_BINS)

    @property
    def _grid(self):
        return Grid(self.bins)

    def _of(self, x, finite):
        lo, hi = _range_of(x, finite)
        return {"lo": lo, "hi": hi, "counts": self._grid.count(x, finite, lo, hi)}

    def _joined(self, first, second):
        joined = _joined_range(first, second)
        first, second = (
            self._grid.move(state["counts"], _range_in(state), _range_in(joined)) for state in (first, second)
        )
        return {**joined, "counts": first + second}

    @torch.no_grad()
    def histogram(self):
        """(counts, edges): int64 [..., bins] and float64 [..., bins + 1], behind the dimensions of the scale.

        Bin i holds what is at least edges[i] and below edges[i + 1].

        Raises:
            RuntimeError if nothing was observed.
        """
        state = self._what_was_seen()
        counts, edges = state["counts"], self._grid.edges(*_range_in(state))
        return tuple(part.reshape(*self._scale_shape, part.shape[1]) for part in (counts, edges))

    def _real_range(self, state):
        """What was seen of each block, float64; 0 and 0 for nothing."""
        return real_range(*_range_in(state))


@dataclass(eq=False)
class Percentile(HistogramObserver):
    """The range without the outermost values: a share of the least and a share of the greatest.

    lo is the last edge of the histogram below which at most `low` percent of the values lie, and hi the first edge
    below which at least `high` percent do; both are moved into what was seen. So at most `low` percent of the values
    are below lo, and at most 100 - `high` percent above hi; of 0 and 100 percent the range is MinMax's.

    Arguments: those of HistogramObserver, and
        low, high: 0 <= low < high <= 100. Symmetric codes take the wider of the two ends.

    Source: onnxruntime's PercentileCalibrater, whose hi is the lower edge of the bin whose upper edge hi is here: on
    few values, that may clip more than was asked for.

    >>> import torch, quaver
    >>> observer = quaver.observers.Percentile(1, 99)
    >>> observer.observe(torch.tensor([-1000.0, *range(98), 1000.0]))
    >>> observer.chosen_range()
    (tensor([0.]), tensor([98.]))
    """

    low: float = 0.001
    high: float = 99.999

    def __post_init__(self):
        super().__post_init__()
        self.low, self.high = self._number("low", self.low), self._number("high", self.high)
        if not 0 <= self.low < self.high <= 100:
            raise self._error(
                ValueError, f"low and high must satisfy 0 <= low < high <= 100, got {self.low} and {self.high}"
            )

    def _range(self, state):
        below = count_below(state["counts"]).to(torch.float64)
        total = below[:, -1:]
        lowest = (below * 100 <= total * self.low).sum(1) - 1
        highest = (below * 100 < total * self.high).sum(1)
        edges = self._grid.edges(*_range_in(state))
        seen = self._real_range(state)
        return tuple(chosen(edges, place).clamp(*seen).to(torch.float32) for place in (lowest, highest))


@dataclass(eq=False)
class MSE(HistogramObserver):
    """The range whose codes are nearest to the values: the least mean of squared errors.

    Candidates are the range seen, with its ends moved towards 0 in equal steps. For symmetric codes both ends move
    together, from max(|lo|, |hi|); for asymmetric ones first together, then in turn hi and lo alone, twice each. The
    error of a candidate is that of quaver.fake_quantize on the middles of the histogram's bins, weighted by their
    counts, summed in float64 in an order that is the same everywhere. Of equal errors the wider range wins.

    Arguments: those of HistogramObserver, and
        candidates: how many steps, 1 to 10,000.

    >>> import torch, quaver
    >>> x = torch.ones(100_000)
    >>> x[0] = 200.0
    >>> observer = quaver.observers.MSE()
    >>> observer.observe(x)
    >>> quaver.fake_quantize(x, observer.qparams())  # 1.5748 without clipping
    tensor([144.0000,   1.1339,   1.1339,  ...,   1.1339,   1.1339,   1.1339])
    """

    candidates: int = 100

    def __post_init__(self):
        super().__post_init__()
        self._check_int("candidates", self.candidates, 1, 10_000)

    def _range(self, state):
        lo, hi = (end.to(torch.float32) for end in self._real_range(state))
        ratios = [step / self.candidates for step in range(self.candidates, 0, -1)]
        centres, weights = self._grid.centres(*_range_in(state)), state["counts"].to(torch.float64)

        def best(ranges):
            return self._best(ranges, centres, weights)

        if self.symmetric:
            bound = torch.maximum(lo.abs(), hi.abs())
            return best((-bound * ratio, bound * ratio) for ratio in ratios)
        lo, hi = lo.clamp(max=0), hi.clamp(min=0)
        best_lo, best_hi = best((lo * ratio, hi * ratio) for ratio in ratios)
        for _ in range(2):
            best_lo, best_hi = best((best_lo, hi * ratio) for ratio in ratios)
            best_lo, best_hi = best((lo * ratio, best_hi) for ratio in ratios)
        return best_lo, best_hi

    def _best(self, ranges, centres, weights):
        """Of ranges that grow narrower, each block's first with the least error."""
        best_lo, best_hi = next(ranges)
        least = self._error_of(best_lo, best_hi, centres, weights)
        for lo, hi in ranges:
            error = self._error_of(lo, hi, centres, weights)
            better = error < least
            least = torch.where(better, error, least)
            best_lo, best_hi = torch.where(better, lo, best_lo), torch.where(better, hi, best_hi)
        return best_lo, best_hi

    def _error_of(self, lo, hi, centres, weights):
        rounded = ops.fake_quantize(centres, self._params(lo, hi), dtype=self.dtype)
        # A range of nearly the largest float32 may have codes that stand for infinity: a finite distance is neither NaN
        # where no values are nor small where some are.
        distance = (rounded.to(torch.float64) - centres).clamp(-LARGEST, LARGEST)
        return halving_sum(distance * distance * weights)


@dataclass(eq=False)
class Entropy(HistogramObserver):
    """The range whose codes lose the least information about the distribution of the values (KL divergence).

    Candidates reach equally far to both sides of 0, by whole bins; python/quaver/entropy.py has the rule. The range is
    then cut to what was seen, and 0. That is meant for values around 0; of data of one sign it sees half of the levels,
    and for asymmetric codes it does not look for a lo and a hi of their own: Percentile and MSE do.

    Arguments: those of HistogramObserver, of which bins are at most 8,192, and
        levels: how many values the codes of a candidate can stand for, by default as many as there are:
            2 * q_max + 1 for symmetric codes, q_max - q_min + 1 for asymmetric ones. onnxruntime's default is 128.

    Source: TensorRT's entropy calibrator; onnxruntime's EntropyCalibrater, whose choice it makes on the same histogram.

    >>> import torch, quaver
    >>> x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    >>> x[0] = 20.0
    >>> observer = quaver.observers.Entropy(q_min=-31, q_max=31, bins=512)
    >>> observer.observe(x)
    >>> observer.chosen_range()
    (tensor([-3.8750]), tensor([4.]))
    """

    levels: int | None = None

    def __post_init__(self):
        super().__post_init__()
        self._check_int("bins", self.bins, 2, 8192)
        if self.levels is None:
            self.levels = 2 * self.q_max + 1 if self.symmetric else self.q_max - self.q_min + 1
        self._check_int("levels", self.levels, 2, self.bins)

    @property
    def _grid(self):
        return Grid(self.bins, centred=True)

    def _range(self, state):
        reach = best_reach(state["counts"], self.levels)
        edges = self._grid.edges(*_range_in(state))
        first, end = kept_bins(reach, self.bins)
        lo, hi = self._real_range(state)
        lo = torch.maximum(lo.clamp(max=0), chosen(edges, first))
        hi = torch.minimum(hi.clamp(min=0), chosen(edges, end))
        return lo.to(torch.float32), hi.to(torch.float32)

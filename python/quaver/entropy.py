"""Which part of a histogram to keep so that the codes' distribution tells the most about the data's.

The rule of TensorRT's calibrator, with the arithmetic of onnxruntime's, so that both choose alike. A candidate keeps
`reach` bins on either side of the bin at 0. What lies outside goes into its outermost bins: that is p. The same bins,
without what lies outside, are joined into as many as there are levels, and each of these spreads its values evenly over
those of its bins that are not empty in p: that is q. The candidate with the least sum p log(p / q) is chosen.

Candidates are often so near to each other that the rounding of float32 decides. It is therefore done as there, sums in
numpy's order included. The logarithm alone is not numpy's, whose last bit depends on the machine: it is rounded from
float64, the same everywhere.

Source: Migacz 2017, "8-bit inference with TensorRT"; onnxruntime.quantization.calibrate.
"""

import torch

from quaver.histogram import count_below

WEIGHT_OF_EMPTY = 1e-4  # what an empty bin counts as
LANES = 8
LONGEST = 128


def best_reach(counts, levels):
    """The bins to keep on either side of the bin `bins // 2`, int64 [blocks]; the fewest of those that are equal.

    Arguments:
        counts: int64 [blocks, bins].
        levels: how many values codes can stand for, at most `bins`.
    """
    bins = counts.shape[1]
    below = count_below(counts)
    least = torch.full_like(below[:, 0], torch.inf, dtype=torch.float32)
    best = torch.full_like(below[:, 0], levels // 2)
    for reach in range(levels // 2, bins // 2 + 1):
        first, end = kept_bins(reach, bins)
        kept = counts[:, first:end]
        p = kept.clone()
        p[:, 0] += below[:, first]
        p[:, -1] += below[:, -1] - below[:, end]
        divergence = _divergence(p, _spread(kept, p != 0, levels))
        better = divergence < least
        least = torch.where(better, divergence, least)
        best = torch.where(better, reach, best)
    return best


def kept_bins(reach, bins):
    """(the first bin, the one behind the last), for an int or a tensor of them."""
    zero = bins // 2
    end = zero + reach + 1
    return zero - reach, min(end, bins) if isinstance(end, int) else end.clamp(max=bins)


def _spread(kept, filled, levels):
    """q, in integers: what a level's bins hold, divided among the filled ones and given to each of them, and to the
    empty ones between. What is left of a division is dropped, and the last level also holds the bins that `levels`
    leaves over, which get nothing.
    """
    blocks, size = kept.shape
    width = size // levels
    whole = levels * width
    held = kept[:, :whole].reshape(blocks, levels, width).sum(2)
    held[:, -1] += kept[:, whole:].sum(1)
    sharing = filled[:, :whole].reshape(blocks, levels, width).sum(2)
    share = torch.where(sharing > 0, held // sharing.clamp(min=1), 0)
    q = share[:, :, None].expand(blocks, levels, width).reshape(blocks, whole)
    return torch.nn.functional.pad(q, (0, size - whole))


def _divergence(p, q):
    """sum p log(p / q) of the smoothed distributions, float32 [blocks]; inf where one of them is empty."""
    known = (p != 0).any(1) & (q != 0).any(1)
    order = NumpyOrder(p.shape[1], p.device)
    weights = _smoothed(torch.cat([p, q]))
    p, q = (weights / order.sum(weights)[:, None]).chunk(2)
    logarithm = torch.log((p / q).to(torch.float64)).to(torch.float32)
    return torch.where(known, order.sum(p * logarithm), torch.inf)


def _smoothed(counts):
    """A little of the filled bins goes to the empty ones, so that no logarithm is infinite; float32."""
    empty = counts == 0
    number = empty.sum(1, keepdim=True).to(torch.float64)
    taken = WEIGHT_OF_EMPTY * number / (counts.shape[1] - number)
    return counts.to(torch.float32) + torch.where(empty, WEIGHT_OF_EMPTY, -taken.to(torch.float32))


class NumpyOrder:
    """The order in which numpy.sum adds a contiguous row of float32.

    The row is halved, at a multiple of 8, until a part has at most 128 elements. Within a part, every eighth element is
    added to one of 8 lanes, these are added in pairs, and then what is beyond a multiple of 8 one by one. All parts are
    added up at once here, filled up to 128 with zeros, which change no sum.
    """

    def __init__(self, length, device):
        self.length = length
        parts = self._parts(0, length)
        whole = [end - (end - first) % LANES for first, end in parts]
        self.rest = range(whole[-1], length)  # other parts are multiples of 8
        firsts, ends = (torch.tensor(places, device=device)[:, None] for places in ([part[0] for part in parts], whole))
        places = firsts + torch.arange(LONGEST, device=device)
        places = torch.where(places < ends, places, length)  # `length` is that of a zero
        self.places = places.view(-1, LONGEST // LANES, LANES)

    def _parts(self, first, end):
        """[(first, end)]"""
        if end - first <= LONGEST:
            return [(first, end)]
        middle = first + self._half(end - first)
        return self._parts(first, middle) + self._parts(middle, end)

    def _half(self, length):
        return length // 2 - length // 2 % LANES

    def sum(self, rows):
        """[n, length] -> [n]"""
        filled = torch.nn.functional.pad(rows, (0, 1))[:, self.places]
        first, *others = filled.unbind(2)
        for other in others:
            first = first + other
        while first.shape[2] > 1:
            first = first[:, :, ::2] + first[:, :, 1::2]
        *parts, last = first[:, :, 0].unbind(1)
        for place in self.rest:
            last = last + rows[:, place]
        return self._together(iter([*parts, last]), self.length)

    def _together(self, parts, length):
        if length <= LONGEST:
            return next(parts)
        half = self._half(length)
        return self._together(parts, half) + self._together(parts, length - half)

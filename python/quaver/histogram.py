"""Histograms whose bins are the same whatever order the data comes in, so that they can be joined without a loss.

A block of values from lo to hi is counted in bins of width w = 2^e whose edges are the integer multiples of w. lo and
hi alone choose e, the smallest exponent with which the bins suffice; when they grow apart, e grows, and bins are joined
in pairs. floor(floor(x / w) / 2) = floor(x / (2 w)), so the counts are then those of a histogram that was as wide from
the start: they depend on the values seen, not on when or where these were seen.

Every block has a grid of its own and all arithmetic is exact: products with powers of 2 in float64, and integers.
"""

from dataclasses import dataclass

import torch

LEAST_EXPONENT = -149  # float32's smallest positive number is 2^-149
SIGNIFICANT_BITS = 24
WIDER_TRIES = 2  # how often the first guess of an exponent may have to grow: see Grid.place
ELEMENTS_AT_ONCE = 2**22  # what is counted at a time: an element's index and weight take 16 bytes


def power_of_two(exponent):
    """2^exponent for int64 exponents within -1022..1023, put together from its bits: exp2 may be off by an ulp."""
    return ((exponent + 1023) << 52).view(torch.float64)


def exponent_of(x):
    """floor(log2(x)) for positive float64 x that came from float32; -1023 for 0."""
    return (x.view(torch.int64) >> 52) - 1023


def floor_index(x, exponent):
    """floor(x / 2^exponent) in int64. float64 has room for the quotient, which a power of 2 does not round."""
    return torch.floor(x * power_of_two(-exponent)).to(torch.int64)


def real_range(lo, hi):
    """lo and hi in float64, 0 and 0 where nothing was seen (lo > hi)."""
    seen = lo <= hi
    return tuple(torch.where(seen, end, torch.zeros_like(end)).to(torch.float64) for end in (lo, hi))


def halving_sum(terms):
    """Sums along the last dimension in an order that is the same everywhere: the halves are added until one is left."""
    length = terms.shape[-1]
    width = 1 << max(length - 1, 0).bit_length()
    if width > length:
        terms = torch.nn.functional.pad(terms, (0, width - length))
    while width > 1:
        width //= 2
        terms = terms[..., :width] + terms[..., width:]
    return terms[..., 0]


@dataclass(frozen=True)
class Grid:
    """How ranges become bins. Ranges are float32 [blocks], lo > hi where nothing was seen; counts int64 [blocks, bins].

    centred: 0 is the lower edge of the bin bins // 2, whatever the range, instead of lo lying in the first bin.
    """

    bins: int
    centred: bool = False

    def place(self, lo, hi):
        """(exponent, index of the first bin), int64 [blocks]: bin i is [first + i, first + i + 1) * 2^exponent.

        The exponent is the smallest with which lo and hi fall into the bins and a bin is no narrower than the steps
        between float32 numbers of hi's or lo's size: finer bins would stay empty, and their indices grow without bound
        (a block that holds a single value has room for it at any exponent).

        With 2^n the largest power of 2 in `bins`, a span of at least 2^g needs an exponent of at least g - n, and two
        more always suffice.
        """
        lo, hi = real_range(lo, hi)
        largest = torch.maximum(lo.abs(), hi.abs())
        span = 2 * largest if self.centred else hi - lo
        finest = (exponent_of(largest) + 1 - SIGNIFICANT_BITS).clamp(min=LEAST_EXPONENT)
        exponent = torch.maximum(exponent_of(span) + 1 - self.bins.bit_length(), finest)
        for _ in range(WIDER_TRIES):
            exponent = exponent + (~self._fits(lo, hi, exponent)).to(torch.int64)
        return exponent, self._first(lo, exponent)

    def _first(self, lo, exponent):
        return torch.full_like(exponent, -(self.bins // 2)) if self.centred else floor_index(lo, exponent)

    def _fits(self, lo, hi, exponent):
        first = self._first(lo, exponent)
        return (floor_index(lo, exponent) >= first) & (floor_index(hi, exponent) < first + self.bins)

    def count(self, x, finite, lo, hi):
        """The counts of float32 x [blocks, elements] where `finite`; lo and hi are its range."""
        exponent, first = (part[:, None] for part in self.place(lo, hi))
        inside, _ = (end[:, None] for end in real_range(lo, hi))  # where an element that does not count is put
        counts = self._empty(len(x), x.device)
        step = max(1, ELEMENTS_AT_ONCE // max(1, len(x)))
        for some, counted in zip(x.split(step, 1), finite.split(step, 1), strict=True):
            index = floor_index(torch.where(counted, some.to(torch.float64), inside), exponent) - first
            self._add(counts, index, counted.to(torch.int64))
        return counts

    def move(self, counts, old, new):
        """The counts on the grid of a range `new` = (lo, hi) that contains `old`. Nothing is lost."""
        exponent, first = self.place(*old)
        new_exponent, new_first = self.place(*new)
        # Indices have up to 25 bits: 62 is as good as more, and within what a shift of an int64 can do.
        halvings = (new_exponent - exponent).clamp(max=62)
        index = self._indices(first) >> halvings[:, None]
        moved = self._empty(len(counts), counts.device)
        # Bins beyond the old range may miss the new grid; they are empty.
        self._add(moved, (index - new_first[:, None]).clamp(0, self.bins - 1), counts)
        return moved

    def edges(self, lo, hi):
        """float64 [blocks, bins + 1]; every edge is a float32 too, but for 2^128."""
        exponent, first = self.place(lo, hi)
        return self._indices(first, self.bins + 1).to(torch.float64) * power_of_two(exponent)[:, None]

    def centres(self, lo, hi):
        """float32 [blocks, bins]: the middle of each bin, moved into [lo, hi]."""
        exponent, first = self.place(lo, hi)
        middles = (self._indices(first).to(torch.float64) + 0.5) * power_of_two(exponent)[:, None]
        lo, hi = real_range(lo, hi)
        return middles.clamp(lo[:, None], hi[:, None]).to(torch.float32)

    def _indices(self, first, count=None):
        return first[:, None] + torch.arange(self.bins if count is None else count, device=first.device)

    def _empty(self, blocks, device):
        return torch.zeros(blocks, self.bins, dtype=torch.int64, device=device)

    def _add(self, counts, index, weights):
        """In one dimension, in which torch's deterministic algorithms can scatter too."""
        rows = torch.arange(len(counts), device=counts.device)[:, None] * self.bins
        counts.view(-1).scatter_add_(0, (rows + index).reshape(-1), weights.reshape(-1))


def count_below(counts):
    """How many values lie below each edge, int64 [blocks, bins + 1]."""
    return torch.nn.functional.pad(counts.cumsum(1), (1, 0))


def chosen(edges, index):
    """edges[block, index[block]], float64 [blocks]."""
    return edges.gather(1, index[:, None])[:, 0]

"""Which style positions can matter to a group of content positions: found cheaply, and certain to be all of them.

Logits of AdaAttN have no 1/sqrt(K), so that most attention weights are nothing. Logits are bounded from above by their
leading principal components and Cauchy-Schwarz for the rest, q . k <= q1 . k1 + |q2| |k2|, which is one narrow matrix
product; exp(bound - a row's logit that is known) bounds a weight. The positions with the smallest bounds, as many as
together weigh nothing in any row of the group, are left out, and the rest is computed as if nothing else were there.

What is left out weighs together less than DROPPED of each row. That moves a mean by at most DROPPED, a deviation by at
most sqrt(1.25 DROPPED) of the value_variance of the values, and that much only where it would have been 0.

Letters as in moments.py; G groups, R rows of a group, D leading components.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

MAX_DROPPED_WEIGHT = 2.0**-24
"""Largest share of a row's weight that is left out: what float32 does not resolve near 1. Half of it goes by bounds,
half when the weights are known."""

MIN_RELATIVE_LOGIT = -64.0
"""Logits farther below the largest count as this: e^-64 times any number of positions is nothing. Exponentials of
anything smaller would be subnormal numbers, which many processors multiply, and make, a hundred times more slowly."""

SLACK = 16.0
"""Mean of |q2| |k2| that decides how many components lead. Measured with the published relu3_1 attention at 512 x 512:
16 leaves 80 of 448 components and takes .16 of the whole attention's time to search, 4 leaves 180 and takes .3."""

BASIS_ROWS = 4096
"""Queries and keys that are looked at to find the components."""

LENGTH_ERROR = 4e-6
"""Of a squared length, added to what the leading components leave of it: more than float32 rounds in it."""

GROUPING_COMPONENTS = 16
BREADTH_KEYS = 1024
ROWS = 128
"""Rows of a group at most: similar enough to look at the same positions, enough to make products worth their set-up."""

PIECE_ROWS = 2048
CANDIDATES_PER_CHUNK = 2048
"""Keys and values gathered at once, by each thread."""

CHUNK = 128
"""Numbers of a row whose largest is found at once."""

MIN_PAIRS = 2**22
MIN_PAIRS_PER_MATRIX_ENTRY = 16
"""With fewer pairs of positions than this, or than this for each number of a K x K matrix, whose eigenvectors it needs,
the search costs more than it saves."""

TRIALS = 4
TRIAL_STEP = 4
DENSE_SHARE = 0.45
"""The search is given up where TRIALS groups keep more than this share of every TRIAL_STEP-th position in the mean.
Measured at 1024 x 1024 with random relu4_1 attention (960 channels): positions of which groups kept .63 took 2.6 s
searched and 1.8 s in tiles."""


class KeyPruner:
    """The search, prepared for some queries and keys.

    Args:
        query: (Nc, K), divided by the temperature.
        key: (Ns, K).
        rows: of a group, at most.
        tile_bytes: memory for the bounds of a group; with more keys than fit in, they are made in pieces.
    """

    def __init__(self, query: Tensor, key: Tensor, rows: int = ROWS, tile_bytes: int = 2**30) -> None:
        self.query, self.key = query, key
        self.keys_at_once = max(1, tile_bytes // (rows * key.element_size()))
        self.center = key.mean(dim=0)  # the same for every logit of a row, so nothing to a softmax; keys get shorter
        second = _second_moment(query, 0.0), _second_moment(key, self.center)
        self.basis = _principal_basis(*second)
        self.leading = _leading_components(*second, self.basis)
        self.exact = self.leading == key.shape[1]
        self.short_query = self._short(query, 0.0)
        self.groups = cluster_queries(self._looks(), rows)

    @cached_property
    def short_key(self) -> Tensor:
        """Made when it is asked for: not for a search that is given up."""
        return self._short(self.key, self.center)

    def _short(self, x: Tensor, center: Tensor | float) -> Tensor:
        """As they are where all components lead: there is nothing to shorten."""
        return x if self.exact else _shortened(x, center, self.basis, self.leading)

    def candidates(self, rows: Tensor) -> Tensor:
        """The style positions that can matter to a group (R,), what may matter most first."""
        return self._found(rows, self.key, self.short_key)

    def _found(self, rows: Tensor, key: Tensor, short_key: Tensor) -> Tensor:
        query, pieces = self.short_query.index_select(0, rows), -(-len(key) // self.keys_at_once)
        bound = query @ short_key[::pieces].T
        if self.exact:
            known = bound.amax(dim=1, keepdim=True)
        else:  # a true logit, so at most the largest
            best = key.index_select(0, pieces * fast_argmax(bound)) - self.center
            known = (self.query.index_select(0, rows) * best).sum(dim=1, keepdim=True)
        if pieces == 1:
            most = bound.sub_(known).amax(dim=0)
        else:
            parts = short_key.tensor_split(pieces)
            most = torch.cat([(query @ part.T).sub_(known).amax(dim=0) for part in parts])
        return drop_smallest(most.clamp_min_(MIN_RELATIVE_LOGIT).exp_(), MAX_DROPPED_WEIGHT / 2).flip(0)

    def is_worthwhile(self) -> bool:
        """Whether groups here and there keep few enough of some positions."""
        key = self.key[::TRIAL_STEP]
        short_key = self._short(key, self.center)
        trials = self.groups[:: max(1, len(self.groups) // TRIALS)][:TRIALS]
        kept = sum(len(self._found(rows, key, short_key)) for rows in trials)
        return kept <= DENSE_SHARE * len(trials) * len(key)

    def _looks(self) -> Tensor:
        """(Nc, .) where queries look, in some directions, and at how many positions: one that looks at many would have
        its whole group look at them."""
        ahead = self.basis[:, :GROUPING_COMPONENTS]
        where = (self.query @ ahead) * (self.key @ ahead).std(dim=0)
        some = self._short(self.key[:: max(1, len(self.key) // BREADTH_KEYS)], self.center)[:, : self.leading]
        parts = _pieces(self.short_query)
        near = [_near(part[:, : self.leading] @ some.T, len(self.key)).sum(dim=1) for part in parts]
        breadth = torch.cat(near).to(where.dtype).log()
        scale = where.norm(dim=1).std(correction=0) / breadth.std(correction=0).clamp_min(1e-6)
        return torch.cat([where, (breadth * scale)[:, None]], dim=1)


def is_flat(query: Tensor, key: Tensor) -> bool:
    """Whether the queries most like one, together, look at so many positions that there is nothing to search for."""
    some = key[:: max(1, len(key) // BREADTH_KEYS)]
    ones = query[:: max(1, len(query) // TRIALS)][:TRIALS]
    alike = torch.cdist(ones, query).topk(min(ROWS, len(query)), largest=False)[1]
    kept = [_near(query.index_select(0, rows) @ some.T, len(key)).any(dim=0).sum() for rows in alike]
    return sum(map(int, kept)) > DENSE_SHARE * len(kept) * len(some)


def drop_smallest(weights: Tensor, dropped: float) -> Tensor:
    """Indices of weights (N,), without the smallest ones, which sum to `dropped` at most: half of that where each is
    too small to count, half of what then are the smallest."""
    near = (weights > dropped / 2 / len(weights)).nonzero()[:, 0]
    ordered, order = weights[near].sort()
    return near[order[int((ordered.cumsum(dim=0) <= dropped / 2).sum()) :]]


def fast_argmax(x: Tensor) -> Tensor:
    """(R, N) -> (R,): where each row's largest number is; a sixth of argmax's time."""
    whole = x.shape[1] // CHUNK * CHUNK
    tops = rearrange(x[:, :whole], "rows (chunks numbers) -> rows chunks numbers", numbers=CHUNK).amax(dim=2)
    if whole < x.shape[1]:
        tops = torch.cat([tops, x[:, whole:].amax(dim=1, keepdim=True)], dim=1)
    first = tops.argmax(dim=1, keepdim=True) * CHUNK
    columns = (first + torch.arange(CHUNK, device=x.device)).clamp_max(x.shape[1] - 1)
    found: Tensor = columns.gather(1, x.gather(1, columns).argmax(dim=1, keepdim=True))[:, 0]
    return found


def _near(logits: Tensor, positions: int) -> Tensor:
    """(R, N) -> (R, N) bool: what comes so near a row's largest that, of so many positions, it could matter."""
    return logits > logits.amax(dim=1, keepdim=True) - math.log(positions / MAX_DROPPED_WEIGHT)


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Rows in pieces: what is made of all of them would be as large as they are."""
    return torch.split(x, PIECE_ROWS)


def _second_moment(x: Tensor, center: Tensor | float) -> Tensor:
    """(K, K): the mean of (x - center)(x - center) over some of the rows."""
    some = x[:: -(-len(x) // BASIS_ROWS)] - center
    return some.T @ some / len(some)


def _principal_basis(query_moment: Tensor, key_moment: Tensor) -> Tensor:
    """(K, K) orthogonal: directions in which queries and keys are long, the longest first."""
    tiny = torch.finfo(key_moment.dtype).tiny
    second = sum(moment / moment.trace().clamp_min(tiny) for moment in (query_moment, key_moment))
    assert isinstance(second, Tensor)
    basis: Tensor = torch.linalg.eigh(second)[1].flip(1)
    return basis


def _leading_components(query_moment: Tensor, key_moment: Tensor, basis: Tensor) -> int:
    """The fewest, a multiple of 16, that leave |q2| |k2| at SLACK in the mean; all of them where that is most."""
    squares = [((moment @ basis) * basis).sum(dim=0).clamp_min(0) for moment in (query_moment, key_moment)]
    tails = [square.flip(0).cumsum(0).flip(0).sqrt() for square in squares]
    above = int((tails[0] * tails[1] > SLACK).sum())
    leading = -(-above // 16) * 16 or 16
    return leading if leading <= len(basis) * 3 // 4 else len(basis)


def _shortened(x: Tensor, center: Tensor | float, basis: Tensor, leading: int) -> Tensor:
    """(N, D + 1): the leading components of x - center, and the length of the others."""
    short = x.new_zeros(len(x), leading + 1)
    for part, into in zip(_pieces(x), _pieces(short), strict=True):
        part = part - center
        torch.mm(part, basis[:, :leading], out=into[:, :leading])
        if leading < len(basis):
            squares = part.square().sum(dim=1)
            others = squares - into[:, :leading].square().sum(dim=1)
            into[:, leading] = (others.clamp_min(0) + LENGTH_ERROR * squares).sqrt()
    return short


def cluster_queries(points: Tensor, rows: int) -> Tensor:
    """Points halved again and again along the coordinate in which they value_variance most.

    Args:
        points: (N, D).
        rows: of a group, at most.

    Returns:
        (G, R) indices into the points, R <= rows; each point is there, some of them twice where G does not divide N.
    """
    halvings = max(0, math.ceil(math.log2(len(points) / rows)))
    size = -(-len(points) // 2**halvings)
    order = torch.arange(size * 2**halvings, device=points.device).clamp_max(len(points) - 1)[None]
    for _ in range(halvings):
        value_variance = points[order]  # (groups, R, D)
        widest = value_variance.var(dim=1).argmax(dim=1)
        along = value_variance.gather(2, widest[:, None, None].expand(-1, value_variance.shape[1], 1))[..., 0]
        order = order.gather(1, along.argsort(dim=1)).reshape(2 * len(order), -1)
    return order

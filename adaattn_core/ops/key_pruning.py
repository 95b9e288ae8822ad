"""Key pruning: for each group of queries, the keys whose softmax weights may not be negligible. Exact in float32.

AdaAttN's logits have no 1/sqrt(K), so most attention weights are negligible. Logits are bounded by their leading
principal components plus Cauchy-Schwarz for the remaining ones, q . k <= q1 . k1 + |q2| |k2|, which costs one narrow
matrix product; exp(bound - a known logit of the row) bounds a weight. The keys with the smallest bounds are dropped, as
many as together weigh next to nothing in every row of the group, and attention is computed on the others.

Together the dropped keys weigh less than MAX_DROPPED_WEIGHT of each row. That changes a mean by at most this fraction
of the values' range, and a standard deviation by at most sqrt(1.25 MAX_DROPPED_WEIGHT) of it, which is reached only
where the deviation is 0.

Shape letters as in moments.py; G groups, R rows of a group, D leading components.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

MAX_DROPPED_WEIGHT = 2.0**-24
"""Largest fraction of a row's weight that is dropped: below the resolution of float32 near 1. Half of it is dropped by
the bounds, half when the weights are known."""

MIN_RELATIVE_LOGIT = -64.0
"""Logits relative to the largest one are clamped to this: e^-64 times any number of positions is negligible. Smaller
exponentials would be subnormal numbers, with which many CPUs compute a hundred times more slowly."""

TARGET_REMAINDER = 16.0
"""Mean of |q2| |k2| that determines the number of leading components. Measured with the published relu3_1 attention at
512 x 512: 16 leaves 80 of 448 components, and the bounds take .16 of the time of full attention; 4 leaves 180 and takes
.3."""

BASIS_SAMPLES = 4096
"""Queries and keys from which the principal components are computed."""

NORM_ROUNDING = 4e-6
"""Fraction of a squared norm that is added to the remainder's: more than the rounding error of float32."""

GROUPING_COMPONENTS = 16
BREADTH_SAMPLES = 1024
ROWS = 128
"""Maximum rows of a group: few enough to attend to the same positions, enough for efficient matrix products."""

CHUNK_ROWS = 2048
CANDIDATES_PER_CHUNK = 2048
"""Keys and values gathered at one time, per thread."""

ARGMAX_CHUNK = 128
"""Columns whose maximum is computed in one reduction."""

MIN_PAIRS = 2**22
MIN_PAIRS_PER_MATRIX_ENTRY = 16
"""Pruning costs more than it saves with fewer pairs of positions than this, or than this per entry of the K x K matrix
whose eigenvectors it needs."""

TRIAL_GROUPS = 4
TRIAL_STRIDE = 4
MAX_KEPT_SHARE = 0.45
"""Pruning is abandoned if TRIAL_GROUPS groups keep more than this share of every TRIAL_STRIDE-th key on average.
Measured at 1024 x 1024 with random relu4_1 attention (960 channels): at a share of .63 pruned attention took 2.6 s,
tiled attention 1.8 s."""


class KeyPruner:
    """Groups of similar queries, and bounds that find the candidate keys of each group.

    Args:
        query: (Nc, K), divided by the temperature.
        key: (Ns, K).
        rows: maximum size of a group.
        tile_bytes: memory for the bounds of a group; with more keys they are computed in chunks.
    """

    def __init__(self, query: Tensor, key: Tensor, rows: int = ROWS, tile_bytes: int = 2**30) -> None:
        self.query, self.key = query, key
        self.keys_per_chunk = max(1, tile_bytes // (rows * key.element_size()))
        self.center = key.mean(dim=0)  # subtracting it shortens keys and shifts all logits of a row alike
        second_moments = _second_moment(query, 0.0), _second_moment(key, self.center)
        self.basis = _principal_basis(*second_moments)
        self.leading = _leading_components(*second_moments, self.basis)
        self.exact = self.leading == key.shape[1]
        self.short_query = self._shorten(query, 0.0)
        self.groups = cluster_queries(self._grouping_features(), rows)
        """(G, R) indices of queries."""

    @cached_property
    def short_key(self) -> Tensor:
        """(Ns, D + 1), see `_shorten`; computed on first use, so not where pruning is abandoned."""
        return self._shorten(self.key, self.center)

    def _shorten(self, x: Tensor, center: Tensor | float) -> Tensor:
        """Leading components and the norm of the remainder; `x` itself if all components lead."""
        return x if self.exact else _shorten(x, center, self.basis, self.leading)

    def candidates(self, rows: Tensor) -> Tensor:
        """Indices of the keys whose weight in a group (R,) may not be negligible, largest bound first."""
        return self._candidates(rows, self.key, self.short_key)

    def _candidates(self, rows: Tensor, key: Tensor, short_key: Tensor) -> Tensor:
        query, chunks = self.short_query.index_select(0, rows), -(-len(key) // self.keys_per_chunk)
        bound = query @ short_key[::chunks].T
        if self.exact:
            known = bound.amax(dim=1, keepdim=True)
        else:  # the exact logit of one key, which is at most the row's largest
            best = key.index_select(0, chunks * fast_argmax(bound)) - self.center
            known = (self.query.index_select(0, rows) * best).sum(dim=1, keepdim=True)
        if chunks == 1:
            largest = bound.sub_(known).amax(dim=0)
        else:
            parts = short_key.tensor_split(chunks)
            largest = torch.cat([(query @ part.T).sub_(known).amax(dim=0) for part in parts])
        return drop_smallest(largest.clamp_min_(MIN_RELATIVE_LOGIT).exp_(), MAX_DROPPED_WEIGHT / 2).flip(0)

    def is_worthwhile(self) -> bool:
        """Whether a sample of the groups keeps few enough of a sample of the keys."""
        key = self.key[::TRIAL_STRIDE]
        short_key = self._shorten(key, self.center)
        trials = self.groups[:: max(1, len(self.groups) // TRIAL_GROUPS)][:TRIAL_GROUPS]
        kept = sum(len(self._candidates(rows, key, short_key)) for rows in trials)
        return kept <= MAX_KEPT_SHARE * len(trials) * len(key)

    def _grouping_features(self) -> Tensor:
        """(Nc, .) leading components of each query, and the breadth of its attention.

        The breadth separates queries that attend to many positions: a group keeps the keys of all its rows.
        """
        components = self.basis[:, :GROUPING_COMPONENTS]
        direction = (self.query @ components) * (self.key @ components).std(dim=0)
        sample = self.key[:: max(1, len(self.key) // BREADTH_SAMPLES)]
        sample = self._shorten(sample, self.center)[:, : self.leading]
        chunks = torch.split(self.short_query, CHUNK_ROWS)
        relevant = [_is_relevant(chunk[:, : self.leading] @ sample.T, len(self.key)).sum(dim=1) for chunk in chunks]
        breadth = torch.cat(relevant).to(direction.dtype).log()
        scale = direction.norm(dim=1).std(correction=0) / breadth.std(correction=0).clamp_min(1e-6)
        return torch.cat([direction, (breadth * scale)[:, None]], dim=1)


def is_flat(query: Tensor, key: Tensor) -> bool:
    """Whether groups of similar queries attend to so many positions that pruning cannot pay off."""
    sample = key[:: max(1, len(key) // BREADTH_SAMPLES)]
    centers = query[:: max(1, len(query) // TRIAL_GROUPS)][:TRIAL_GROUPS]
    groups = torch.cdist(centers, query).topk(min(ROWS, len(query)), largest=False)[1]
    kept = [_is_relevant(query.index_select(0, rows) @ sample.T, len(key)).any(dim=0).sum() for rows in groups]
    return sum(map(int, kept)) > MAX_KEPT_SHARE * len(kept) * len(sample)


def drop_smallest(weights: Tensor, dropped: float) -> Tensor:
    """Indices of weights (N,) without the smallest ones, which sum to at most `dropped`; ascending by weight.

    Half of `dropped` covers the weights that are each negligible, which need no sorting, half the smallest others.
    """
    relevant = (weights > dropped / 2 / len(weights)).nonzero()[:, 0]
    ordered, order = weights[relevant].sort()
    return relevant[order[int((ordered.cumsum(dim=0) <= dropped / 2).sum()) :]]


def fast_argmax(x: Tensor) -> Tensor:
    """(R, N) -> (R,): argmax of each row on the CPU, in a sixth of the time of `torch.argmax`."""
    complete = x.shape[1] // ARGMAX_CHUNK * ARGMAX_CHUNK
    chunks = rearrange(x[:, :complete], "rows (chunks columns) -> rows chunks columns", columns=ARGMAX_CHUNK)
    maxima = chunks.amax(dim=2)
    if complete < x.shape[1]:
        maxima = torch.cat([maxima, x[:, complete:].amax(dim=1, keepdim=True)], dim=1)
    first = maxima.argmax(dim=1, keepdim=True) * ARGMAX_CHUNK
    columns = (first + torch.arange(ARGMAX_CHUNK, device=x.device)).clamp_max(x.shape[1] - 1)
    argmax: Tensor = columns.gather(1, x.gather(1, columns).argmax(dim=1, keepdim=True))[:, 0]
    return argmax


def _is_relevant(logits: Tensor, positions: int) -> Tensor:
    """(R, N) -> (R, N) bool: logits so near their row's largest that among `positions` they are not negligible."""
    return logits > logits.amax(dim=1, keepdim=True) - math.log(positions / MAX_DROPPED_WEIGHT)


def _second_moment(x: Tensor, center: Tensor | float) -> Tensor:
    """(K, K): the mean of (x - center)^T (x - center) over a sample of the rows."""
    sample = x[:: -(-len(x) // BASIS_SAMPLES)] - center
    return sample.T @ sample / len(sample)


def _principal_basis(query_moment: Tensor, key_moment: Tensor) -> Tensor:
    """(K, K) orthogonal: principal directions of queries and keys together, the largest first."""
    tiny = torch.finfo(key_moment.dtype).tiny
    query_share, key_share = (moment / moment.trace().clamp_min(tiny) for moment in (query_moment, key_moment))
    basis: Tensor = torch.linalg.eigh(query_share + key_share)[1].flip(1)
    return basis


def _leading_components(query_moment: Tensor, key_moment: Tensor, basis: Tensor) -> int:
    """The smallest multiple of 16 that leaves a mean |q2| |k2| of TARGET_REMAINDER; above 3/4 of them, all."""
    squares = [((moment @ basis) * basis).sum(dim=0).clamp_min(0) for moment in (query_moment, key_moment)]
    query_norm, key_norm = (square.flip(0).cumsum(0).flip(0).sqrt() for square in squares)
    above = int((query_norm * key_norm > TARGET_REMAINDER).sum())
    leading = -(-above // 16) * 16 or 16
    return leading if leading <= len(basis) * 3 // 4 else len(basis)


def _shorten(x: Tensor, center: Tensor | float, basis: Tensor, leading: int) -> Tensor:
    """(N, K) -> (N, D + 1): the leading components of x - center, and the norm of the remainder."""
    output = x.new_zeros(len(x), leading + 1)
    for chunk, short in zip(torch.split(x, CHUNK_ROWS), torch.split(output, CHUNK_ROWS), strict=True):
        chunk = chunk - center
        torch.mm(chunk, basis[:, :leading], out=short[:, :leading])
        if leading < len(basis):
            squares = chunk.square().sum(dim=1)
            remainder = squares - short[:, :leading].square().sum(dim=1)
            short[:, leading] = (remainder.clamp_min(0) + NORM_ROUNDING * squares).sqrt()
    return output


def cluster_queries(points: Tensor, rows: int) -> Tensor:
    """Groups of near points: halved repeatedly along the coordinate with the largest variance.

    Args:
        points: (N, D).
        rows: maximum size of a group.

    Returns:
        (G, R) indices of points, R <= rows; every point is included, some twice where G does not divide N.
    """
    halvings = max(0, math.ceil(math.log2(len(points) / rows)))
    size = -(-len(points) // 2**halvings)
    order = torch.arange(size * 2**halvings, device=points.device).clamp_max(len(points) - 1)[None]
    for _ in range(halvings):
        grouped = points[order]  # (groups, R, D)
        widest = grouped.var(dim=1).argmax(dim=1)
        coordinate = grouped.gather(2, widest[:, None, None].expand(-1, grouped.shape[1], 1))[..., 0]
        order = order.gather(1, coordinate.argsort(dim=1)).reshape(2 * len(order), -1)
    return order

"""Which style positions can matter to a group of content positions: found cheaply, and certain to be all of them.

Logits of AdaAttN have no 1/sqrt(K), so that most attention weights are nothing. A position whose logit is `margin`
below a row's largest has a weight under exp(-margin). Logits are bounded from above by their leading principal
components and Cauchy-Schwarz for the rest, q . k <= q1 . k1 + |q2| |k2|, which is one narrow matrix product; positions
whose bound is too low for every row of the group are left out, and the rest is computed as if nothing else were there.

What is left out weighs together less than DROPPED of each row. That moves a mean by at most DROPPED, a deviation by at
most sqrt(1.25 DROPPED) of the spread of the values, and that much only where it would have been 0.

Letters as in moments.py; G groups, R rows of a group, D leading components.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

DROPPED = 1e-8
"""Largest share of a row's weight that is left out: a sixth of what float32 resolves near 1."""

SLACK = 16.0
"""Mean of |q2| |k2| that decides how many components lead. Measured with the published relu3_1 attention at 512 x 512:
16 leaves 80 of 448 components and takes .16 of the whole attention's time to search, 4 leaves 180 and takes .3."""

GROUPING_COMPONENTS = 16
ROWS = 128
"""Rows of a group at most: similar enough to look at the same positions, enough to make products worth their set-up."""

SMALLEST_PAIRS = 2**22
"""With fewer pairs of positions than this the search costs more than it saves."""

DENSE_SHARE = 0.7
"""Groups that keep more than this share of the positions are computed with all of them."""

TRIALS = 8
"""Groups looked at before the search is given up, if they keep more than DENSE_SHARE in the mean."""


class Screen:
    """The search, prepared for some queries and keys.

    Args:
        query: (Nc, K), divided by the temperature.
        key: (Ns, K); best centred, which changes no softmax.
        rows: of a group, at most.
    """

    def __init__(self, query: Tensor, key: Tensor, rows: int = ROWS) -> None:
        self.query, self.key = query, key
        self.margin = math.log(len(key) / DROPPED)
        basis = _principal_basis(query, key)
        rotated_query, rotated_key = query @ basis, key @ basis
        leading = _leading_components(rotated_query, rotated_key)
        self.exact = leading == key.shape[1]
        points = rotated_query[:, :GROUPING_COMPONENTS] * rotated_key[:, :GROUPING_COMPONENTS].std(dim=0)
        self.groups = similar_groups(points, rows)
        self.short_query, self.short_key = _shortened(rotated_query, leading), _shortened(rotated_key, leading)
        self.looked, self.kept = 0, 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each group: its rows (R,), and the style positions that can matter to them, or None for all."""
        for rows in self.groups:
            yield rows, self._positions(rows)

    def _positions(self, rows: Tensor) -> Tensor | None:
        if self.looked >= TRIALS and self.kept > DENSE_SHARE * self.looked:
            return None
        bound = self.short_query[rows] @ self.short_key.T
        if self.exact:
            reached = bound.amax(dim=1, keepdim=True)
        else:  # a true logit, so at most the largest
            reached = (self.query[rows] * self.key[bound.argmax(dim=1)]).sum(dim=1, keepdim=True)
        kept = bound.sub_(reached).amax(dim=0) > -self.margin
        positions = kept.nonzero()[:, 0]
        share = len(positions) / len(kept)
        self.looked, self.kept = self.looked + 1, self.kept + share
        return positions if share <= DENSE_SHARE else None


def _principal_basis(query: Tensor, key: Tensor) -> Tensor:
    """(K, K) orthogonal: directions in which queries and keys are long, the longest first."""
    second = sum(x.T @ x / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny) for x in (query, key))
    assert isinstance(second, Tensor)
    return torch.linalg.eigh(second)[1].flip(1)  # type: ignore[no-any-return]


def _leading_components(query: Tensor, key: Tensor) -> int:
    """The fewest, a multiple of 16, that leave |q2| |k2| at SLACK in the mean; all of them where that is most."""
    tails = [x.square().mean(dim=0).flip(0).cumsum(0).flip(0).sqrt() for x in (query, key)]
    above = int((tails[0] * tails[1] > SLACK).sum())
    leading = -(-above // 16) * 16
    return leading if leading <= query.shape[1] * 3 // 4 else query.shape[1]


def _shortened(x: Tensor, leading: int) -> Tensor:
    """(N, D + 1): the leading components, and the length of the others."""
    return torch.cat([x[:, :leading], x[:, leading:].norm(dim=1, keepdim=True)], dim=1)


def similar_groups(points: Tensor, rows: int) -> Tensor:
    """Points halved again and again along the coordinate in which they spread most.

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
        spread = points[order]  # (groups, R, D)
        widest = spread.var(dim=1).argmax(dim=1)
        along = spread.gather(2, widest[:, None, None].expand(-1, spread.shape[1], 1))[..., 0]
        order = order.gather(1, along.argsort(dim=1)).reshape(2 * len(order), -1)
    return order

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

PIECE_ROWS = 8192

SMALLEST_PAIRS = 2**22
"""With fewer pairs of positions than this the search costs more than it saves."""

TRIALS = 8
DENSE_SHARE = 0.7
"""After TRIALS groups the search is given up where groups keep more than this share of the positions in the mean."""


class Screen:
    """The search, prepared for some queries and keys.

    Args:
        query: (Nc, K), divided by the temperature.
        key: (Ns, K).
        rows: of a group, at most.
    """

    def __init__(self, query: Tensor, key: Tensor, rows: int = ROWS) -> None:
        self.query, self.key = query, key
        self.margin = math.log(len(key) / DROPPED)
        self.center = key.mean(dim=0)  # the same for every logit of a row, so nothing to a softmax; keys get shorter
        second = _second_moment(query, 0.0), _second_moment(key, self.center)
        basis = _principal_basis(*second)
        leading = _leading_components(*second, basis)
        self.exact = leading == key.shape[1]
        self.short_query = _shortened(query, 0.0, basis, leading)
        self.short_key = _shortened(key, self.center, basis, leading)
        ahead = slice(min(leading, GROUPING_COMPONENTS))
        self.groups = similar_groups(self.short_query[:, ahead] * self.short_key[:, ahead].std(dim=0), rows)
        self.looked, self.kept = 0, 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each group: its rows (R,), and the style positions that can matter to them; None: no longer searched."""
        for rows in self.groups:
            yield rows, self._positions(rows)

    def _positions(self, rows: Tensor) -> Tensor | None:
        if self.looked >= TRIALS and self.kept > DENSE_SHARE * self.looked:
            return None
        bound = self.short_query[rows] @ self.short_key.T
        if self.exact:
            reached = bound.amax(dim=1, keepdim=True)
        else:  # a true logit, so at most the largest
            best = self.key[bound.argmax(dim=1)] - self.center
            reached = (self.query[rows] * best).sum(dim=1, keepdim=True)
        kept = bound.sub_(reached).amax(dim=0) > -self.margin
        positions = kept.nonzero()[:, 0]
        share = len(positions) / len(kept)
        self.looked, self.kept = self.looked + 1, self.kept + share
        return positions


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Rows in pieces: what is made of all of them would be as large as they are."""
    return torch.split(x, PIECE_ROWS)


def _second_moment(x: Tensor, center: Tensor | float) -> Tensor:
    """(K, K): the mean over rows of (x - center)(x - center)."""
    return sum((part - center).T @ (part - center) for part in _pieces(x)) / len(x)  # type: ignore[return-value]


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
    short = x.new_empty(len(x), leading + 1)
    for part, into in zip(_pieces(x), _pieces(short), strict=True):
        rotated = (part - center) @ basis
        into[:, :leading] = rotated[:, :leading]
        into[:, leading] = rotated[:, leading:].norm(dim=1)
    return short


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

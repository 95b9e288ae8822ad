"""Several paintings of one content, mixed: everywhere in the same shares, or by masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from .fusion import Fused
from .masks import resize_mask
from .painting import Painting, style_shares


def mix_paintings(
    paintings: Sequence[Painting], weights: Sequence[float] | None = None, masks: Sequence[Tensor | None] | None = None
) -> Painting:
    """Paintings of one content, averaged.

    Without masks this is the same as mixing the styles' statistics: what follows them is linear up to the decoder, and
    the shares sum to 1. With masks, a share is weight times mask, at each position scaled to sum 1 over the paintings;
    where all masks are 0 the content stays. Masks that are the same in several paintings count once: the sum of all
    different ones, cut at 1, is where the mix is painted. So two styles under one mask stay under it, and regions
    that meet at a soft border leave no content between them.

    Args:
        paintings: all of the same content and by the same attention.
        weights: one per painting, not negative; None means equal.
        masks: one per painting, (B or 1, 1, H, W) at the content's size, or None; times the masks the paintings have.

    Raises:
        ValueError: another content or attention, or numbers out of their range.
    """
    shares = style_shares(weights, len(paintings))
    masks = list(masks) if masks is not None else [None] * len(paintings)
    if len(masks) != len(paintings):
        raise ValueError(f"{len(masks)} masks came for {len(paintings)} paintings; give one (or None) for each")
    first = paintings[0]
    for index, other in enumerate(paintings[1:], 2):
        _check_same_content(first, other, index)
    areas = [_both(painting.mask, mask) for painting, mask in zip(paintings, masks, strict=True)]
    kept = [index for index, share in enumerate(shares) if share > 0]
    paintings, shares, areas = ([values[i] for i in kept] for values in (paintings, shares, areas))  # type: ignore[assignment]
    own = next((painting.own for painting in paintings if painting.own is not None), None)
    return first._replace(
        fused=_mixed_fused([painting.fused for painting in paintings], shares, areas),
        own=own,
        strength=_weighted([painting.strength for painting in paintings], _shares_at(shares, areas, None)),
        mask=_union(areas),
    )


def _check_same_content(first: Painting, other: Painting, number: int) -> None:
    if first.attention.fingerprint != other.attention.fingerprint:
        raise ValueError(
            f"painting {number} was made by another model than painting 1 ({other.attention} and {first.attention}); "
            "paintings to mix need one model. Use the same attention for all of them."
        )
    if first.content is other.content:
        return
    if first.content.shape != other.content.shape or not torch.equal(first.content, other.content):
        raise ValueError(
            f"painting {number} has another content than painting 1; paintings to mix need one content. "
            "Use the same content features for all of them."
        )


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where both are; None is everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one * other.to(one.device)


def _union(areas: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of the different ones, cut at 1."""
    different: list[Tensor] = []
    for area in areas:
        if area is None:
            return None
        if not any(area.shape == known.shape and torch.equal(area, known) for known in different):
            different.append(area)
    return reduce(torch.add, different).clamp(max=1)


def _shares_at(shares: Sequence[float], areas: Sequence[Tensor | None], size: tuple[int, int] | None) -> list[Tensor]:
    """Shares of each painting at every position of a grid (None: of the pixels), (B or 1, 1, H, W) or (1, 1, 1, 1)."""
    if all(area is None for area in areas):
        return [torch.full((1, 1, 1, 1), share) for share in shares]
    device = next(area.device for area in areas if area is not None)
    plain = [torch.full((1, 1, 1, 1), share, device=device) for share in shares]
    parts = [
        share if area is None else share * (area if size is None else resize_mask(area, size))
        for share, area in zip(plain, areas, strict=True)
    ]
    total = reduce(torch.add, parts)
    return [torch.where(total > 0, part / total, share) for part, share in zip(parts, plain, strict=True)]


def _weighted(values: Sequence[Tensor], shares: Sequence[Tensor]) -> Tensor:
    """Sum of values times shares, in float32; in the values' dtype."""
    terms = [value.float() * share.to(value.device) for value, share in zip(values, shares, strict=True)]
    return reduce(torch.add, terms).to(values[0].dtype)


def _mixed_fused(fused: Sequence[Fused], shares: Sequence[float], areas: Sequence[Tensor | None]) -> Fused:
    def grid(tensors: Sequence[Tensor]) -> Tensor:
        return _weighted(tensors, _shares_at(shares, areas, (tensors[0].shape[-2], tensors[0].shape[-1])))

    skips = [one.skip for one in fused if one.skip is not None]
    return Fused(grid([one.deep for one in fused]), grid(skips) if skips else None)

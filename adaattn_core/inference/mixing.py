"""Several paintings of one content, mixed: everywhere in the same shares, or by masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.fusion import FusedFeatures
from ..ops.masks import resize_mask
from .stages import StylizedFeatures
from .validation import normalize_weights


def mix_paintings(
    paintings: Sequence[StylizedFeatures],
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor | None] | None = None,
) -> StylizedFeatures:
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
    shares = normalize_weights(weights, len(paintings))
    masks = list(masks) if masks is not None else [None] * len(paintings)
    if len(masks) != len(paintings):
        raise ValueError(f"{len(masks)} masks came for {len(paintings)} paintings; give one (or None) for each")
    for number, other in enumerate(paintings[1:], 2):
        _check_same_content(paintings[0], other, number)
    areas = [_both(painting.mask, mask) for painting, mask in zip(paintings, masks, strict=True)]
    kept = [index for index, share in enumerate(shares) if share > 0]
    mixed = _Mix([shares[index] for index in kept], [areas[index] for index in kept])
    used = [paintings[index] for index in kept]
    skips = [one.fused.skip for one in used if one.fused.skip is not None]
    return used[0]._replace(
        fused=FusedFeatures(mixed.grids([one.fused.deep for one in used]), mixed.grids(skips) if skips else None),
        own=next((one.own for one in used if one.own is not None), None),
        strength=mixed.strengths([one.strength for one in used]),
        mask=mixed.area(),
    )


class _Mix(NamedTuple):
    """Shares of some paintings, summing to 1, and where each of them is painted (None is everywhere)."""

    shares: list[float]
    areas: list[Tensor | None]

    def grids(self, features: Sequence[Tensor]) -> Tensor:
        """(B, C, h, w) each, mixed."""
        mixed = _sum_of(features, self._shares_at((features[0].shape[-2], features[0].shape[-1])))
        return mixed.to(features[0].dtype)

    def strengths(self, strengths: Sequence[Tensor]) -> Tensor:
        """One number where all are the same, else a map of the pixels."""
        if all(torch.equal(strength, strengths[0]) for strength in strengths):
            return strengths[0]
        return _sum_of(strengths, self._shares_at(None))

    def area(self) -> Tensor | None:
        """Where the mix is painted: the sum of the different areas, cut at 1."""
        different: list[Tensor] = []
        for area in self.areas:
            if area is None:
                return None
            if not any(area.shape == known.shape and torch.equal(area, known) for known in different):
                different.append(area)
        return reduce(torch.add, different).clamp(max=1)

    def _shares_at(self, size: tuple[int, int] | None) -> list[Tensor]:
        """Share of each painting at every position of a grid (None: of the pixels), (B or 1, 1, h or 1, w or 1)."""
        device = next((area.device for area in self.areas if area is not None), None)
        plain = [torch.full((1, 1, 1, 1), share, device=device) for share in self.shares]
        if device is None:
            return plain
        parts = [
            share if area is None else share * (resize_mask(area, size) if size else area)
            for share, area in zip(plain, self.areas, strict=True)
        ]
        total = reduce(torch.add, parts)
        return [torch.where(total > 0, part / total, share) for part, share in zip(parts, plain, strict=True)]


def _sum_of(values: Sequence[Tensor], shares: Sequence[Tensor]) -> Tensor:
    """Values times shares, added in float32 on the values' device."""
    pairs = zip(values, shares, strict=True)
    return reduce(torch.add, (value.float() * share.to(value.device) for value, share in pairs))


def _check_same_content(first: StylizedFeatures, other: StylizedFeatures, number: int) -> None:
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

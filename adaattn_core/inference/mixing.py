"""Several stylized versions of one content, mixed: by the same weights everywhere, or by masks.

A painting is the StylizedFeatures of a content; a mask is (B or 1, 1, H, W) in [0, 1], None is 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.fusion import FusedFeatures
from ..ops.layout import counted
from ..ops.masks import region_shares, union
from .stages import StylizedFeatures
from .validation import normalize_weights


def mix_paintings(
    paintings: Sequence[StylizedFeatures],
    weights: Sequence[float] | None = None,
    masks: Sequence[Tensor | None] | None = None,
) -> StylizedFeatures:
    """The weighted average of paintings of one content.

    Without masks this is the same as averaging the statistics of the styles: everything between the statistics and the
    decoder is linear, and the weights sum to 1. With masks, the weight at a position is weight times mask, scaled to
    sum 1 over the paintings; where all masks are 0 the content stays. Equal masks of several paintings count once: the
    mix shows where the sum of all different masks, limited to 1, is above 0. So two styles under one mask stay under
    it, and regions that meet at a soft border leave no content between them.

    Args:
        paintings: all of the same content and by the same attention.
        weights: one per painting, not negative; None means equal.
        masks: one per painting, (B or 1, 1, H, W) at the content's size, or None; multiplied by the paintings' own.

    Raises:
        ValueError: another content or attention, or numbers out of their range.
    """
    weights = normalize_weights(weights, len(paintings))
    masks = list(masks) if masks is not None else [None] * len(paintings)
    if len(masks) != len(paintings):
        came = f"{counted(len(masks), 'mask')} came for {counted(len(paintings), 'painting')}"
        raise ValueError(f"{came}; give one (or None) for each")
    for number, other in enumerate(paintings[1:], 2):
        _check_same_content(paintings[0], other, number)
    products = [_multiply(painting.mask, mask) for painting, mask in zip(paintings, masks, strict=True)]
    used = [index for index, weight in enumerate(weights) if weight > 0]
    mix = _Mix([weights[index] for index in used], [products[index] for index in used])
    paintings = [paintings[index] for index in used]
    skips = [painting.fused.skip for painting in paintings if painting.fused.skip is not None]
    return paintings[0]._replace(
        fused=FusedFeatures(
            mix.features([painting.fused.deep for painting in paintings]), mix.features(skips) if skips else None
        ),
        own=next((painting.own for painting in paintings if painting.own is not None), None),
        strength=mix.strength([painting.strength for painting in paintings]),
        mask=mix.mask(),
    )


class _Mix(NamedTuple):
    """Weights that sum to 1, and the masks that they apply under."""

    weights: list[float]
    masks: list[Tensor | None]

    def features(self, features: Sequence[Tensor]) -> Tensor:
        """(B, C, h, w) each -> their average, (B, C, h, w)."""
        size = features[0].shape[-2], features[0].shape[-1]
        return _weighted_sum(features, self._weight_maps(size)).to(features[0].dtype)

    def strength(self, strengths: Sequence[Tensor]) -> Tensor:
        """One number where all are the same, else a map of the pixels."""
        if all(torch.equal(strength, strengths[0]) for strength in strengths):
            return strengths[0]
        return _weighted_sum(strengths, self._weight_maps(None))

    def mask(self) -> Tensor | None:
        """Where the mix shows."""
        masks = [mask for mask in self.masks if mask is not None]
        return union(masks) if len(masks) == len(self.masks) else None

    def _weight_maps(self, size: tuple[int, int] | None) -> list[Tensor]:
        """Weight of each painting at every position of a grid (None: of the pixels), (B or 1, 1, h or 1, w or 1)."""
        if all(mask is None for mask in self.masks):
            return [torch.full((1, 1, 1, 1), weight, dtype=torch.float32) for weight in self.weights]
        device = next(mask.device for mask in self.masks if mask is not None)
        masks = [mask if mask is None else mask.to(device) for mask in self.masks]
        return region_shares(masks, self.weights, size)


def _weighted_sum(values: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Values times weights, added in float32 on the values' device."""
    pairs = zip(values, weights, strict=True)
    return reduce(torch.add, (value.float() * weight.to(value.device) for value, weight in pairs))


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


def _multiply(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The product of two masks."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask * other.to(mask.device)

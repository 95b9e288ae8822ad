"""TODO"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.encoder import check_images
from ..models.fusion import StyleFeatures


def expand_to_batch(picture: Tensor, content: Tensor) -> Tensor:
    """A picture for each content.

    Raises:
        ValueError: the picture is of another size, or there are neither one nor as many as contents.
    """
    if picture.shape[1:] != content.shape[1:] or len(picture) not in (1, len(content)):
        came, needed = (f"{one.shape[-1]}x{one.shape[-2]} pixels, batch {len(one)}" for one in (picture, content))
        raise ValueError(
            f"the content image is {came}; the painting is {needed}. Give the content that was painted, or one picture "
            "of its size."
        )
    return picture.expand_as(content)


def check_batch(style: StyleFeatures, contents: int) -> None:
    """ValueError unless the style has one picture, or one for each content."""
    check_items(len(next(iter(style.values())).key), contents)


def check_items(items: int, contents: int) -> None:
    """ValueError unless there is one style picture, or one for each content."""
    if items not in (1, contents):
        more = f", or {contents}" if contents > 1 else ""
        raise ValueError(f"the style has {items} pictures and the content {contents}; give 1 style{more}")


def normalize_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights scaled to sum 1."""
    if count == 0:
        raise ValueError("no style came; at least one is needed")
    shares = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(shares) != count:
        raise ValueError(f"{len(shares)} style weights came for {count} styles; give one for each")
    if min(shares) < 0 or not sum(shares) > 0 or not math.isfinite(sum(shares)):
        raise ValueError(f"style weights are {shares}; they must not be negative, and one must be above 0")
    return [share / sum(shares) for share in shares]


def check_picture(picture: Tensor, role: str) -> None:
    """ValueError unless (B, 3, H, W), floating point, finite, at least 16 pixels a side."""
    check_images(picture, role)
    if not picture.is_floating_point():
        raise ValueError(
            f"the {role} has dtype {picture.dtype}; floating point in [0, 1] is needed. Divide by 255 first."
        )
    if not bool(torch.isfinite(picture).all()):
        raise ValueError(f"the {role} holds NaN or infinite values; numbers in [0, 1] are needed")


def check_unit(name: str, value: float) -> None:
    """ValueError unless the value is from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be between 0 and 1")

"""Resizing of images, and the smallest size that the encoder accepts."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

MIN_SIDE = 16
"""Smallest side of a picture in pixels: relu5_1 then has one row or column."""


def resize_image(
    image: Tensor, *, short_side: int | None = None, long_side: int | None = None, size: tuple[int, int] | None = None
) -> Tensor:
    """An image resized to a short side, a long side or an exact (height, width): antialiased bicubic.

    Args:
        image: (B, C, H, W) float in [0, 1].
        short_side, long_side, size: exactly one, in pixels, at least 16. With a short or long side the aspect ratio is
            preserved, except that no side becomes smaller than 16.

    Returns:
        (B, C, height, width) in [0, 1]; `image` itself if it has that size.

    Raises:
        ValueError: none or several of the sizes, or one below 16.
    """
    choices = (("short_side", short_side), ("long_side", long_side), ("size", size))
    given = [f"{name}={value}" for name, value in choices if value is not None]
    if len(given) != 1 or min(size or (short_side or long_side or 0,)) < MIN_SIDE:
        received = " and ".join(given) or "no size"
        raise ValueError(
            f"{received} came; one of short_side, long_side and size is needed, {MIN_SIDE} pixels or more."
        )
    height, width = image.shape[-2:]
    if size is None:
        scale = short_side / min(height, width) if short_side else (long_side or 0) / max(height, width)
        size = max(MIN_SIDE, round(height * scale)), max(MIN_SIDE, round(width * scale))
    if (height, width) == size:
        return image
    return functional.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)

"""Conversion between ComfyUI's IMAGE and MASK and the library's pictures and masks. Imports nothing of ComfyUI.

IMAGE: (B, H, W, C), C 3, sometimes 4 or 1. MASK: (B, H, W), sometimes (H, W). Pictures: (B, 3, H, W) float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .core import masks

NO_ALPHA = (64, 64)
"""Size of the all-black mask that Load Image returns for a picture without transparency. It counts as no mask."""


def to_pictures(image: Tensor, role: str) -> Tensor:
    """IMAGE of any float type -> (B, 3, H, W) float32. A fourth channel is dropped, a single one is repeated."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or not len(image):
        raise ValueError(f"the {role} image has shape {tuple(image.shape)}; (batch, height, width, 3) is needed")
    picture = image[..., :3].movedim(-1, 1).float()
    return picture.expand(-1, 3, -1, -1) if picture.shape[1] == 1 else picture


def to_image(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> IMAGE."""
    return pictures.movedim(1, -1).contiguous()


def is_no_mask(mask: Tensor | None) -> bool:
    """Whether no mask is connected, or the one that Load Image returns for a picture without transparency."""
    return mask is None or (tuple(mask.shape[-2:]) == NO_ALPHA and not bool(mask.any()))


def fit_content_mask(
    mask: Tensor | None,
    picture: Tensor,
    *,
    threshold: float = 0.0,
    invert: bool = False,
    feather: int = 0,
    name: str = "content mask",
) -> Tensor | None:
    """MASK -> where the content is stylized: (B or 1, 1, H, W) at the picture's size, None for everywhere.

    Raises:
        ValueError: the mask is 0 everywhere in all pictures.
    """
    if mask is None or is_no_mask(mask):
        return None
    fitted = masks.fit_mask(mask, picture, "content", stretch=True)
    shaped = masks.shape_mask(fitted, threshold=threshold, invert=invert, feather=feather).to(picture.device)
    if not bool(shaped.any()):
        raise ValueError(
            f"the {name} is empty: nothing is left to paint. Paint some of it white, change invert or threshold, or "
            "disconnect it."
        )
    return shaped


def fit_style_mask(mask: Tensor | None, picture: Tensor) -> Tensor | None:
    """MASK -> the part of a style to attend to: (B or 1, 1, H, W) at the picture's size, None for all of it."""
    return None if mask is None or is_no_mask(mask) else masks.fit_mask(mask, picture, "style", stretch=True)


def to_mask(mask: Tensor | None, picture: Tensor) -> Tensor:
    """(B or 1, 1, H, W) or None for everywhere -> MASK (B or 1, H, W)."""
    return torch.ones(1, *picture.shape[-2:]) if mask is None else mask[:, 0]

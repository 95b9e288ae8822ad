"""ComfyUI's IMAGE and MASK <-> the core's pictures and masks. Knows nothing of ComfyUI but these shapes.

IMAGE: (B, H, W, C), C 3, sometimes 4 or 1. MASK: (B, H, W), sometimes (H, W). Pictures: (B, 3, H, W) float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .core import masks

NO_ALPHA = (64, 64)
"""Size of the mask that Load Image gives for a picture without transparency; it is all 0 and means: no mask."""


def to_pictures(image: Tensor, role: str) -> Tensor:
    """IMAGE of any float type -> (B, 3, H, W) float32; a fourth channel is dropped, a single one is grey."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or not len(image):
        raise ValueError(f"the {role} image has shape {tuple(image.shape)}; (batch, height, width, 3) is needed")
    picture = image[..., :3].movedim(-1, 1).float()
    return picture.expand(-1, 3, -1, -1) if picture.shape[1] == 1 else picture


def to_image(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> IMAGE."""
    return pictures.movedim(1, -1).contiguous()


def is_no_mask(mask: Tensor | None) -> bool:
    """Whether nothing is connected, or what Load Image gives for a picture without transparency."""
    return mask is None or (tuple(mask.shape[-2:]) == NO_ALPHA and not bool(mask.any()))


def content_area(
    mask: Tensor | None,
    picture: Tensor,
    *,
    threshold: float = 0.0,
    invert: bool = False,
    feather: int = 0,
    name: str = "content mask",
) -> Tensor | None:
    """MASK -> where to paint, (B or 1, 1, H, W) at the picture's size; None is everywhere.

    Raises:
        ValueError: nothing is left to paint in any picture.
    """
    if mask is None or is_no_mask(mask):
        return None
    fitted = masks.fit_mask(mask, picture, "content", stretch=True)
    area = masks.shape_mask(fitted, threshold=threshold, invert=invert, feather=feather).to(picture.device)
    if not bool(area.any()):
        raise ValueError(
            f"the {name} is empty: nothing is left to paint. Paint some of it white, change invert or threshold, or "
            "disconnect it."
        )
    return area


def style_area(mask: Tensor | None, picture: Tensor) -> Tensor | None:
    """MASK -> which part of a style to look at; None is all of it."""
    return None if mask is None or is_no_mask(mask) else masks.fit_mask(mask, picture, "style", stretch=True)


def to_mask(area: Tensor | None, picture: Tensor) -> Tensor:
    """The mask as applied -> MASK (B or 1, H, W)."""
    return torch.ones(1, *picture.shape[-2:]) if area is None else area[:, 0]

"""Conversion between ComfyUI's IMAGE and MASK and the library's pictures and masks. Imports nothing of ComfyUI.

IMAGE: (B, H, W, C), C 3, sometimes 4 or 1. MASK: (B, H, W), sometimes (H, W). Pictures: (B, 3, H, W) float32. The
fourth channel is opacity: (B, 1, H, W), 1 is opaque; None where all pictures are opaque.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .core import layout, masks, opacity, remarks

NO_ALPHA = (64, 64)
"""Size of the all-black mask that Load Image returns for a picture without transparency. It counts as no mask."""


def to_pictures(image: Tensor, role: str) -> Tensor:
    """IMAGE of any float type -> (B, 3, H, W) float32. `to_alpha` is the fourth channel; a single one is repeated."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or not image.numel():
        shape = image.movedim(-1, -3).shape if image.ndim > 2 else image.shape
        came = layout.pictures_in_words(shape)
        raise ValueError(f"the {role} image is {came}; a batch of pictures with 3 channels is needed")
    picture = image[..., :3].movedim(-1, 1).float()
    return picture.expand(-1, 3, -1, -1) if picture.shape[1] == 1 else picture


def to_alpha(image: Tensor) -> Tensor | None:
    """IMAGE -> the opacity of its pictures."""
    if image.shape[-1] != 4 or bool((image[..., 3] == 1).all()):
        return None
    return image[..., 3:].movedim(-1, 1).float().clamp(0, 1)


def to_style(
    image: Tensor, mask: Tensor | None, resize: Callable[[Tensor], Tensor] = lambda picture: picture
) -> tuple[Tensor, Tensor | None]:
    """IMAGE and MASK of a style -> the pictures, resized, and the part to attend to: a clear part is none of it."""
    alpha = to_alpha(image)
    picture = resize(opacity.fill_clear(to_pictures(image, "style"), alpha))
    visible = None if alpha is None else masks.fit_mask(alpha, picture, "style", stretch=True)
    return picture, both(fit_style_mask(mask, picture), visible)


def both(mask: Tensor | None, alpha: Tensor | None) -> Tensor | None:
    """The product of two masks of one size, each of which may be missing."""
    if mask is None or alpha is None:
        return alpha if mask is None else mask
    return mask * alpha.to(mask.device)


def with_alpha(image: Tensor, alpha: Tensor | None) -> Tensor:
    """IMAGE with an opacity as its fourth channel, or as it is."""
    return image if alpha is None else torch.cat([image, to_image(alpha.to(image))], dim=-1)


def with_hidden(image: Tensor, content: Tensor, mask: Tensor | None, strength: float) -> Tensor:
    """A painted IMAGE with the opacity of the content, and its hidden colours where nothing was painted.

    Args:
        image: what was painted of `opacity.visible_color`.
        content: the IMAGE that came.
        mask: where it was painted, (B or 1, 1, H, W).
        strength: of the style.
    """
    alpha = to_alpha(content)
    if alpha is None:
        return image
    share = strength if mask is None else strength * mask.to(image.device)
    color = to_pictures(content, "content").to(image)
    kept = opacity.restore_hidden(to_pictures(image, "image"), color.float(), alpha.to(color.device), share)
    return with_alpha(to_image(kept).to(image.dtype), alpha)


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

    A mask that is 0 everywhere in all pictures paints nothing, and a remark says so.
    """
    if mask is None or is_no_mask(mask):
        return None
    return fit_drawn_mask(mask, picture, name, threshold=threshold, invert=invert, feather=feather)


def fit_drawn_mask(
    mask: Tensor, picture: Tensor, name: str, *, threshold: float = 0.0, invert: bool = False, feather: int = 0
) -> Tensor:
    """The same of a mask that counts also where it is the empty one of Load Image: there nothing was drawn."""
    fitted = masks.fit_mask(mask, picture, "content", stretch=True)
    shaped = masks.shape_mask(fitted, threshold=threshold, invert=invert, feather=feather).to(picture.device)
    if not bool(shaped.any()):
        remarks.remark(
            "",
            f"the {name} is empty: nothing is painted there. Paint some of it white, change invert or threshold, or "
            "disconnect it.",
        )
    return shaped


def painted_strength(strength: float, mask: Tensor | None) -> float:
    """The strength of the style, which is 0 where an empty mask leaves nothing to paint."""
    return strength if mask is None or bool(mask.any()) else 0.0


def fit_style_mask(mask: Tensor | None, picture: Tensor) -> Tensor | None:
    """MASK -> the part of a style to attend to: (B or 1, 1, H, W) at the picture's size, None for all of it."""
    return None if mask is None or is_no_mask(mask) else masks.fit_mask(mask, picture, "style", stretch=True)


def to_mask(mask: Tensor | None, picture: Tensor) -> Tensor:
    """(B or 1, 1, H, W) or None for everywhere -> MASK (B or 1, H, W)."""
    return torch.ones(1, *picture.shape[-2:], dtype=torch.float32) if mask is None else mask[:, 0]

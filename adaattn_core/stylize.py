"""What a user does: a picture repainted in the style of others.

Letters: B batch, H W pixels. Pictures are RGB in [0, 1]; masks are (B or 1, 1, H, W) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import StyleLevel
from .encoder import check_images
from .fusion import StyleFeatures
from .images import keep_color as keep_content_color
from .model import StyleTransferModel
from .moments import BLOCK_BYTES

Attention = Literal["exact", "sampled"]
ATTENTIONS: tuple[str, ...] = get_args(Attention)

SAMPLED_POSITIONS = 4096
"""Style positions that sampled attention keeps on relu3_1: 64 x 64, as in the published code."""

CHUNK_PIXELS = 2**21
"""Batch items run together up to this many pixels; larger ones one by one, so memory does not grow with the batch."""

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of a mask and its picture (rounding of a resize)."""


def encode_style(
    model: StyleTransferModel,
    style: Tensor,
    *,
    mask: Tensor | None = None,
    attention: Attention = "exact",
    seed: int = 0,
) -> StyleFeatures:
    """All that `stylize` needs of a style, to be made once and used with many contents.

    Args:
        model: what will stylise.
        style: (B, 3, H, W), at least 16 pixels a side.
        mask: the part of the style to look at, same aspect as the style; at least one position above 0.5.
        attention: "exact" looks at every style position, "sampled" at 4096 random ones, as the published code does.
        seed: of that choice; the same seed gives the same picture. The global generator is not touched.

    Raises:
        ValueError: wrong shape or size, an unknown attention, an empty mask.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention!r}; known are {', '.join(ATTENTIONS)}")
    _check_picture(style, "style")
    if mask is not None:
        mask = fit_mask(mask, style, "style").to(_device(model))
        if not bool((mask > 0.5).flatten(1).any(dim=1).all()):
            raise ValueError(
                "the style mask is empty: no part of the style is left to look at. Paint some of it white."
            )
    samples = SAMPLED_POSITIONS if attention == "sampled" else None
    with torch.no_grad():
        features = model.encoder(_on_model(model, style), model.deepest)
        return model.fusion.encode_style(features, mask, samples, torch.Generator().manual_seed(seed))


def stylize(
    model: StyleTransferModel,
    content: Tensor,
    style: Tensor | StyleFeatures | Sequence[Tensor | StyleFeatures],
    *,
    style_weights: Sequence[float] | None = None,
    strength: float = 1.0,
    temperature: float = 1.0,
    content_mask: Tensor | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    keep_color: bool = False,
    attention: Attention = "exact",
    seed: int = 0,
    max_memory_gb: float | None = None,
) -> Tensor:
    """The content repainted in the style, or in a mix of styles.

    Args:
        model: from `load_model`.
        content: (B, 3, H, W), at least 16 pixels a side.
        style: a picture of any size, or a result of `encode_style`; or several of these. A picture has batch 1, for
            all contents, or B, one for each.
        style_weights: one share per style, scaled to sum 1; None mixes equally.
        strength: 0 gives the content back, 1 the full style.
        temperature: above 0; 1 is neutral, higher mixes more style positions into each content position, lower fewer.
        content_mask: where to stylise: 1 the result, 0 the content, exactly. Same aspect as the content.
        style_masks: one per style: the part of it to look at; None for all of it. Only for styles given as pictures.
        keep_color: take only brightness from the result, and colours from the content.
        attention, seed: see `encode_style`; they count for styles given as pictures.
        max_memory_gb: aim for attention blocks of at most an eighth of this; None takes the fastest size. Encoder
            and decoder need about 1.5 GB for each 1024 x 1024 pixels with the full-size model.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device.

    Raises:
        ValueError: an argument out of its range, or shapes that do not fit; the text says which.
    """
    _check_picture(content, "content")
    _check_unit("strength", strength)
    styles = [style] if isinstance(style, Tensor | dict) else list(style)
    weights = _shares(style_weights, len(styles))
    masks = list(style_masks) if style_masks is not None else [None] * len(styles)
    if len(masks) != len(styles):
        raise ValueError(f"{len(masks)} style masks came for {len(styles)} styles; give one (or None) for each")
    painted = [
        _encoded(model, one, mask, len(content), attention, seed) for one, mask in zip(styles, masks, strict=True)
    ]
    fitted = None if content_mask is None else fit_mask(content_mask, content, "content").to(content.device)
    if strength == 0:
        return content.float().clamp(0, 1)
    chunk = max(1, CHUNK_PIXELS // (content.shape[-1] * content.shape[-2]))
    parts = []
    with torch.no_grad():
        for start in range(0, len(content), chunk):
            window = slice(start, start + chunk)
            part = _stylize_chunk(
                model,
                content[window],
                [_items(one, window) for one in painted],
                weights,
                strength,
                temperature,
                _block_bytes(max_memory_gb),
            )
            parts.append(part.to(content.device))
    result = torch.cat(parts).clamp(0, 1)
    plain = content.float().clamp(0, 1)
    if keep_color:
        result = keep_content_color(result, plain)
    return result if fitted is None else torch.where(fitted > 0, torch.lerp(plain, result, fitted), plain)


def _stylize_chunk(
    model: StyleTransferModel,
    content: Tensor,
    styles: Sequence[StyleFeatures],
    weights: Sequence[float],
    strength: float,
    temperature: float,
    block_bytes: int,
) -> Tensor:
    """(b, 3, H, W) float32, not clamped.

    Below full strength the features are mixed level by level, and the decoder's own error on the content (what it
    loses of an unchanged picture) is added back in proportion, so that strength 0 is the content itself.
    """
    size = (content.shape[-2], content.shape[-1])
    images = _on_model(model, content)
    features = model.encoder(images, model.deepest)
    statistics = model.fusion.statistics(features, styles, weights, temperature=temperature, block_bytes=block_bytes)
    fused = model.fusion.merge(model.fusion.repaint(features, statistics, strength))
    own = model.fusion.merge(features) if strength < 1 else None
    del features, statistics  # the shallow levels are the largest tensors there are; the decoder needs none of them
    result = model.decode(fused, size).float()
    if own is None:
        return result
    unchanged = model.decode(own, size).float()
    return result + (1 - strength) * (images.float() - unchanged)


def _encoded(
    model: StyleTransferModel,
    style: Tensor | StyleFeatures,
    mask: Tensor | None,
    batch: int,
    attention: Attention,
    seed: int,
) -> StyleFeatures:
    if isinstance(style, Tensor):
        style = encode_style(model, style, mask=mask, attention=attention, seed=seed)
    elif mask is not None:
        raise ValueError("a style mask came with an already encoded style; give the mask to encode_style instead")
    items = len(next(iter(style.values())).key)
    if items not in (1, batch):
        raise ValueError(f"the style has {items} pictures and the content {batch}; give 1 style, or {batch}")
    return style


def _items(style: StyleFeatures, window: slice) -> StyleFeatures:
    """The styles of some content items; a single one serves them all."""
    return {
        level: one
        if len(one.key) == 1
        else StyleLevel(one.key[window], one.value[window], None if one.mask is None else one.mask[window])
        for level, one in style.items()
    }


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if count == 0:
        raise ValueError("no style came; at least one is needed")
    shares = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(shares) != count:
        raise ValueError(f"{len(shares)} style weights came for {count} styles; give one for each")
    if min(shares) < 0 or not sum(shares) > 0 or not math.isfinite(sum(shares)):
        raise ValueError(f"style weights are {shares}; they must not be negative, and one must be above 0")
    return [share / sum(shares) for share in shares]


def fit_mask(mask: Tensor, picture: Tensor, role: str) -> Tensor:
    """A mask at its picture's size, float32 in [0, 1]."""
    height, width = picture.shape[-2:]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    if mask.ndim != 4 or mask.shape[1] != 1 or len(mask) not in (1, len(picture)):
        raise ValueError(
            f"the {role} mask has shape {tuple(mask.shape)}; ({len(picture)} or 1, 1, height, width) is needed"
        )
    rows, columns = mask.shape[-2:]
    if abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"the {role} mask is {columns}x{rows} pixels, the {role} {width}x{height}: another aspect ratio. "
            f"Crop or draw the mask to fit the {role}."
        )
    mask = mask.float().clamp(0, 1)
    return (
        mask
        if (rows, columns) == (height, width)
        else F.interpolate(mask, size=(height, width), mode="bilinear", antialias=True)
    )


def _check_picture(picture: Tensor, role: str) -> None:
    check_images(picture, role)
    if not picture.is_floating_point():
        raise ValueError(
            f"the {role} has dtype {picture.dtype}; floating point in [0, 1] is needed. Divide by 255 first."
        )
    if not bool(torch.isfinite(picture).all()):
        raise ValueError(f"the {role} holds NaN or infinite values; numbers in [0, 1] are needed")


def _check_unit(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be between 0 and 1")


def _block_bytes(max_memory_gb: float | None) -> int:
    if max_memory_gb is None:
        return BLOCK_BYTES
    if not max_memory_gb > 0:
        raise ValueError(f"max_memory_gb is {max_memory_gb}; it must be above 0")
    return min(BLOCK_BYTES, int(max_memory_gb * 2**30 / 8))


def _device(model: StyleTransferModel) -> torch.device:
    return model.encoder.conv0.weight.device


def _on_model(model: StyleTransferModel, images: Tensor) -> Tensor:
    weight = model.encoder.conv0.weight
    return images.clamp(0, 1).to(weight.device, weight.dtype, memory_format=torch.channels_last)

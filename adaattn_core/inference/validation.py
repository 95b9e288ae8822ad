"""Checks of arguments, with messages that say what came, what is needed and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from ..models.encoder import check_images
from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.layout import check_tensor, counted, is_clamped, range_problem, value_range
from ..runtime.remarks import remark


def expand_to_batch(picture: Tensor, content: Tensor) -> Tensor:
    """A picture for each content.

    Raises:
        ValueError: it is no picture, has another size, or another batch size that is not 1.
    """
    check_picture(picture, "content image")
    if picture.shape[1:] != content.shape[1:] or len(picture) not in (1, len(content)):
        came, needed = (
            f"{counted(len(one), 'picture')} of {one.shape[-1]}x{one.shape[-2]} pixels" for one in (picture, content)
        )
        raise ValueError(
            f"the content image is {came}; the painting is {needed}. Give the content that was painted, or one picture "
            "of its size."
        )
    return picture.expand_as(content)


def check_style_batches(styles: Sequence[StyleFeatures], content_batch: int) -> None:
    """ValueError unless each style has one picture, or one for each content."""
    for style in styles:
        check_style_batch(len(next(iter(style.values())).key), content_batch)


def check_style_batch(style_batch: int, content_batch: int) -> None:
    """ValueError unless a style has one picture, or one for each content."""
    if style_batch not in (1, content_batch):
        more = f", or {content_batch}" if content_batch > 1 else ""
        raise ValueError(f"the style has {style_batch} pictures and the content {content_batch}; give 1 style{more}")


def normalize_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights of `count` styles, scaled to sum 1; None gives equal ones."""
    if count == 0:
        raise ValueError("no style came; at least one is needed")
    weights = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(weights) != count:
        raise ValueError(
            f"{counted(len(weights), 'style weight')} came for {counted(count, 'style')}; give one for each"
        )
    total = sum(weights)
    if min(weights) < 0 or not total > 0 or not math.isfinite(total):
        raise ValueError(f"style weights are {weights}; they must not be negative, and one must be above 0")
    return [weight / total for weight in weights]


def style_masks_or_none(masks: Sequence[Tensor | None] | None, styles: int) -> list[Tensor | None]:
    """A mask, or None, for each style.

    Raises:
        ValueError: another number of masks than styles.
    """
    if masks is None:
        return [None] * styles
    if len(masks) != styles:
        came = f"{counted(len(masks), 'style mask')} came for {counted(styles, 'style')}"
        raise ValueError(f"{came}; give one (or None) for each")
    return list(masks)


def check_model(model: object) -> None:
    """ValueError unless it can be a model, and is not for example the name of one."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is of type {type(model).__name__}; what load_model gives is needed.")


def list_styles(
    model: StyleTransferModel, style: Tensor | StyleFeatures | Sequence[Tensor | StyleFeatures]
) -> list[Tensor | StyleFeatures]:
    """One style or several as a list, of which those that are encoded have the shapes of the model.

    Raises:
        ValueError: a style is neither a tensor nor encoded, or it was encoded by a model of another shape.
    """
    styles = [style] if isinstance(style, Tensor | dict | str) else list(style)
    widths = {level: model.fusion.level_attention(level).style_widths for level in model.config.levels}
    for one in styles:
        if not isinstance(one, dict):
            check_tensor(one, "style")
        elif {level: (kv.key.shape[-1], kv.value.shape[-1]) for level, kv in one.items()} != widths:
            raise ValueError(
                "the style was encoded by another model; this one needs its own. Encode it with encode_style and this "
                "model."
            )
    return styles


def check_picture(picture: Tensor, role: str) -> None:
    """ValueError unless (B, 3, H, W), floating point, in [0, 1], at least 16 pixels a side.

    Values that are a little outside, as bicubic resizing makes them, are left to `clamp_pictures`; a remark says so.

    Args:
        picture: what to check.
        role: names the picture in the message.
    """
    if isinstance(picture, dict):
        raise ValueError(f"the {role} is already encoded; the picture itself is needed.")
    check_tensor(picture, role)
    check_images(picture, role)
    if not picture.is_floating_point():
        raise ValueError(
            f"the {role} has dtype {picture.dtype}; floating point in [0, 1] is needed. Divide by 255 first."
        )
    low, high = value_range(picture)
    problem = range_problem(low, high)
    if problem:
        raise ValueError(f"the {role} {problem}")
    if is_clamped(low, high):
        remark(f"the {role}", f"values from {low:.3g} to {high:.3g} are clamped to [0, 1]")


def check_unit(name: str, value: float) -> None:
    """ValueError unless the value is from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be between 0 and 1")

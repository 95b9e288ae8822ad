"""Style transfer in one call: `encode_style` and `stylize`.

Letters: B batch, H W pixels. Pictures are RGB in [0, 1]; masks are (B or 1, 1, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..checkpoints.vgg import load_vgg
from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.layout import counted
from ..ops.masks import fit_mask, resize_mask, union
from ..ops.resize import resize_image
from ..runtime.kept import Shelf
from ..runtime.memory import malloc_trim_if_large
from ..runtime.progress import ProgressCallback
from ..runtime.remarks import remark
from .batching import slice_batch
from .chunked import TransferOptions
from .coarse_to_fine import Painting, check_stroke_size, run_passes
from .memory_budget import style_budget
from .refine import check_steps, refine
from .stages import Attention, clamp_pictures, encode, encode_style_features
from .validation import check_model, check_picture, list_styles, normalize_weights, style_masks_or_none

TRANSFER_SHARE = 0.05
"""Share of the progress that style transfer gets where refinement follows."""

KEPT_SIZES = 4
"""As many as a picture of 12 megapixels needs."""

ResultCallback = Callable[[slice, Tensor], None]
"""Called with a slice of the batch and its finished pictures, (items, 3, H, W) float32 in [0, 1]."""


def encode_style(
    model: StyleTransferModel,
    style: Tensor,
    *,
    mask: Tensor | None = None,
    attention: Attention = "exact",
    seed: int = 0,
    max_memory_gb: float | None = None,
) -> StyleFeatures:
    """Everything that `stylize` needs of a style, computed once for many contents.

    Args:
        model: the model that will stylize.
        style: (B, 3, H, W), at least 16 pixels a side.
        mask: the part of the style to attend to, same aspect as the style; at least one position above 0.5.
        attention: "exact" attends to every style position, "sampled" to 4096 random ones, as the published code does.
        seed: of that choice; the same seed gives the same picture. The global generator is not touched.
        max_memory_gb: see `stylize`.

    Raises:
        ValueError: wrong shape or size, an unknown attention, an empty mask.
    """
    check_model(model)
    check_picture(style, "style")
    fitted = None if mask is None else fit_mask(mask, style, "style")
    tile_bytes = style_budget(model, style, max_memory_gb).tile_bytes
    features = encode(model.encoder, clamp_pictures(style), model.config.levels, tile_bytes)
    malloc_trim_if_large(style)
    encoded = encode_style_features(model.fusion, features, mask=fitted, attention=attention, seed=seed)
    del features
    malloc_trim_if_large(style)
    return encoded


def encode_reduced(
    model: StyleTransferModel,
    style: Tensor,
    mask: Tensor | None,
    short_side: int | None,
    attention: Attention,
    seed: int,
    max_memory_gb: float | None,
) -> StyleFeatures:
    """`encode_style` of a style reduced to a short side where its own is longer; None leaves it as it is."""
    if short_side is not None and min(style.shape[-2:]) > short_side:
        check_picture(style, "style")
        fitted = None if mask is None else fit_mask(mask, style, "style")
        style = resize_image(clamp_pictures(style), short_side=short_side)
        mask = None if fitted is None else resize_mask(fitted, (style.shape[-2], style.shape[-1]))
    return encode_style(model, style, mask=mask, attention=attention, seed=seed, max_memory_gb=max_memory_gb)


class KeptStyles(list[Tensor]):
    """Style pictures for many calls of `stylize`, which keeps what it encodes of them for the next call.

    Of each style the `KEPT_SIZES` sizes that were used last are kept.

    Args:
        pictures: the styles.
        encode: in place of `encode_reduced`, and keeps its results by itself.
    """

    def __init__(self, pictures: Sequence[Tensor], encode: Callable[..., StyleFeatures] | None = None) -> None:
        super().__init__(pictures)
        self.encode = encode or lru_cache(maxsize=KEPT_SIZES * len(self))(encode_reduced)


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
    refine_steps: int = 0,
    stroke_size: float = 0.0,
    progress: ProgressCallback | None = None,
    on_result: ResultCallback | None = None,
    shelf: Shelf | None = None,
    refine_dtype: torch.dtype | None = None,
    region_masks: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """The content in a style, in a mix of styles, or with each region in a style of its own.

    Args:
        model: from `load_model`.
        content: (B, 3, H, W), at least 16 pixels a side.
        style: a picture of any size, or a result of `encode_style`; or several of these. A picture has batch 1, for
            all contents, or B, one for each.
        style_weights: one per style, scaled to sum 1; None mixes equally.
        strength: 0 gives the content back, 1 the full style.
        temperature: above 0; 1 is neutral, higher mixes more style positions into each content position, lower fewer.
        content_mask: where to stylize: 1 the result, 0 the content, exactly. Same aspect as the content.
        style_masks: one per style: the part of it to attend to; None for all of it. Only for styles given as pictures.
        keep_color: take only brightness from the result, and colours from the content.
        attention, seed: see `encode_style`; they count for styles given as pictures.
        max_memory_gb: GiB that the process (on an accelerator, what is allocated there) may hold at most, pictures
            and model included; None takes the fastest sizes. Where the picture does not fit, a warning says what it
            needs, and the smallest sizes are taken. Refinement has its own need beside it: about 1 GiB at 512 x 512,
            up to 4 GiB at 1024 x 1024 and above.
        refine_steps: steps of refinement after that, see `refine`; 60 to 100 are usual, 0 is none. Only for styles
            given as pictures.
        stroke_size: size of strokes relative to the picture, up to 8: 1 is that of a picture with a short side of 512
            pixels, 2 twice that. Larger pictures are painted in several passes, coarse to fine (see `plan_passes`), in
            at most half as much time again; styles are reduced to the size of each pass and to at most 1024 pixels. 0
            is a single pass with styles as they are, whose strokes have the same size in pixels in every picture. Only
            for styles given as pictures; `KeptStyles` are encoded once for many contents.
        progress: called with the share that is done, from 0 to 1, now and then; stops the work by raising.
        on_result: called with a slice of the batch and its finished pictures, as soon as they are there. It takes them
            over: the returned tensor is then empty, so that a long clip needs no memory for all its frames.
        shelf: keeps what another call with another strength, mask or `keep_color` can use again. The caller gives a
            shelf of its own to every model, content, style and other argument.
        refine_dtype: the `dtype` of `refine`.
        region_masks: one per style: the region of the content that it paints, same aspect as the content; None is
            what the masks of the others leave, shared by all styles without one. Soft masks blend the statistics of
            the styles and not their pixels. Where masks overlap, each style has the share weight times mask. Outside
            all masks the content stays, exactly. Styles with an empty mask are left out, and a remark says so.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device; (0, 3, H, W) with `on_result`.

    Raises:
        ValueError: an argument out of its range, or shapes that do not fit; the text says which.
    """
    check_model(model)
    check_picture(content, "content")
    check_steps(refine_steps)
    check_stroke_size(stroke_size)
    styles = list_styles(model, style)
    options = TransferOptions(normalize_weights(style_weights, len(styles)), strength, temperature)
    masks = _checked_masks(style_masks, styles)
    mask = None if content_mask is None else fit_mask(content_mask, content, "content").to(content.device)
    regions = _fit_regions(region_masks, content, options.weights)
    if regions is not None:
        if refine_steps:
            raise ValueError(
                "refine_steps came with region_masks, which refinement does not know. Give refine_steps=0, or no "
                "region masks."
            )
        styles, masks = [styles[index] for index in regions.used], [masks[index] for index in regions.used]
        mask = regions.covered if mask is None else mask * regions.covered
        options = regions.limit(options)
    if stroke_size:
        _check_pictures(styles, "stroke_size")
    refinement = (
        _refinement(model, styles, masks, options, keep_color, (refine_steps, refine_dtype)) if refine_steps else None
    )
    encode_one = style.encode if isinstance(style, KeptStyles) else encode_reduced

    def encode_all(side: int | None) -> list[StyleFeatures]:
        return [
            encode_one(model, one, mask, side, attention, seed, max_memory_gb) if isinstance(one, Tensor) else one
            for one, mask in zip(styles, masks, strict=True)
        ]

    release = all(isinstance(one, Tensor) for one in styles) and not isinstance(style, KeptStyles)
    painting = Painting(model, content, encode_all, release, options, mask, keep_color, max_memory_gb, shelf)
    kept = 0 if on_result else len(content)
    result = torch.empty(kept, *content.shape[1:], device=content.device, dtype=torch.float32)
    deliver: ResultCallback = on_result or result.__setitem__

    def finish(items: slice, _content: Tensor, pictures: Tensor, progress: ProgressCallback | None) -> None:
        if refinement:
            pictures = refinement(pictures, content, items, slice_batch(mask, items), progress)
        deliver(items, pictures)

    run_passes(painting, stroke_size, TRANSFER_SHARE if refinement else 1.0, finish, progress)
    return result


class _Regions(NamedTuple):
    """Regions of a content that are painted.

    used: the numbers of their styles. masks: (B or 1, 1, H, W) each. covered: where any of them is, the same shape.
    """

    used: list[int]
    masks: tuple[Tensor, ...]
    covered: Tensor

    def limit(self, options: TransferOptions) -> TransferOptions:
        """Options of all styles -> those of the styles that are used; without any, nothing is painted."""
        if not self.used:
            return replace(options, weights=[], strength=0.0)
        return replace(options, weights=[options.weights[index] for index in self.used], regions=self.masks)


def _fit_regions(masks: Sequence[Tensor | None] | None, content: Tensor, weights: Sequence[float]) -> _Regions | None:
    """The regions of `region_masks`, without those that paint nothing; None where no style has a mask.

    Raises:
        ValueError: another number of masks than styles, or a mask that does not fit the content.
    """
    if masks is None or all(mask is None for mask in masks):
        return None
    if len(masks) != len(weights):
        came = f"{counted(len(masks), 'region mask')} came for {counted(len(weights), 'style')}"
        raise ValueError(f"{came}; give one (or None) for each")
    fitted = [None if mask is None else fit_mask(mask, content, "content").to(content.device) for mask in masks]
    nothing = torch.zeros(1, 1, *content.shape[-2:], device=content.device, dtype=torch.float32)
    counting = [mask for mask, weight in zip(fitted, weights, strict=True) if mask is not None and weight > 0]
    drawn = union([*counting, nothing])
    regions = [1 - drawn if mask is None else mask for mask in fitted]
    used = [index for index, mask in enumerate(regions) if weights[index] > 0 and bool(mask.any())]
    if not used:
        remark("", "every region mask is empty, so nothing is painted; draw the regions in white")
    for index, mask in enumerate(regions):
        if used and not bool(mask.any()) and masks[index] is not None:
            remark("", f"region {index + 1} is empty, so its style is painted nowhere; draw the region in white")
        elif used and not bool(mask.any()):
            remark("", "the region masks cover the whole content, so that a style without one is painted nowhere")
    kept = tuple(regions[index] for index in used)
    return _Regions(used, kept, union(kept) if kept else nothing)


def _checked_masks(
    masks: Sequence[Tensor | None] | None, styles: Sequence[Tensor | StyleFeatures]
) -> Sequence[Tensor | None]:
    """A mask, or None, for each style.

    Raises:
        ValueError: another number of masks than styles, or a mask for a style that is already encoded.
    """
    masks = style_masks_or_none(masks, len(styles))
    for style, mask in zip(styles, masks, strict=True):
        if mask is not None and not isinstance(style, Tensor):
            raise ValueError("a style mask came with an already encoded style; give the mask to encode_style instead")
    return masks


Refinement = Callable[[Tensor, Tensor, slice, Tensor | None, ProgressCallback | None], Tensor]
"""Stylized pictures, all contents, which of them these are, where to paint, and progress -> refined pictures."""


def _refinement(
    model: StyleTransferModel,
    styles: Sequence[Tensor | StyleFeatures],
    masks: Sequence[Tensor | None],
    options: TransferOptions,
    keep_color: bool,
    effort: tuple[int, torch.dtype | None],
) -> Refinement:
    """`refine` with the arguments of `stylize`, its steps and its dtype, on the device of the model.

    Raises:
        ValueError: a style is already encoded, or its mask does not fit.
    """
    pictures = _check_pictures(styles, "refine_steps")
    fitted = [None if mask is None else fit_mask(mask, one, "style") for mask, one in zip(masks, pictures, strict=True)]
    vgg = load_vgg(normalized=True).to(model.encoder.conv0.weight.device)

    def run(
        stylized: Tensor, content: Tensor, items: slice, mask: Tensor | None, progress: ProgressCallback | None
    ) -> Tensor:
        return refine(
            stylized, content[items], slice_batch(pictures, items), steps=effort[0], style_weights=options.weights,
            strength=options.strength, temperature=options.temperature, content_mask=mask,
            style_masks=slice_batch(fitted, items), keep_color=keep_color, vgg=vgg, dtype=effort[1], progress=progress,
        )  # fmt: skip

    return run


def _check_pictures(styles: Sequence[Tensor | StyleFeatures], option: str) -> list[Tensor]:
    """The styles, all of them pictures.

    Raises:
        ValueError: a style is already encoded, which the option cannot use, or no picture.
    """
    pictures = [one for one in styles if isinstance(one, Tensor)]
    if len(pictures) < len(styles):
        raise ValueError(
            f"{option} needs the style as a picture, and an already encoded style came; give the picture itself "
            "instead of the result of encode_style"
        )
    for picture in pictures:
        check_picture(picture, "style")
    return pictures

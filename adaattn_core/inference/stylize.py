"""Style transfer in one call: `encode_style` and `stylize`.

Letters: B batch, H W pixels. Pictures are RGB in [0, 1]; masks are (B or 1, 1, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..checkpoints.vgg import load_vgg
from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.masks import fit_mask
from ..runtime.memory import malloc_trim_if_large
from ..runtime.progress import ProgressCallback, sub_progress
from .batching import batch_size_for, run_batched, slice_batch
from .chunked import TransferOptions
from .memory_budget import DEFAULT_SIZES, ChunkSizes, content_budget, style_budget
from .refine import check_steps, refine
from .stages import Attention, clamp_pictures, decode, encode, encode_style_features, transfer
from .validation import check_picture, check_style_batches, normalize_weights, style_masks_or_none

DECODING_STARTS = 0.9
"""Share of the time a picture takes that is over when only the decoder is left; for the progress bar."""
TRANSFER_SHARE = 0.05
"""Share of the progress that style transfer gets where refinement follows."""

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
    check_picture(style, "style")
    fitted = None if mask is None else fit_mask(mask, style, "style")
    tile_bytes = style_budget(model, style, max_memory_gb).tile_bytes
    features = encode(model.encoder, clamp_pictures(style), model.config.levels, tile_bytes)
    malloc_trim_if_large(style)
    encoded = encode_style_features(model.fusion, features, mask=fitted, attention=attention, seed=seed)
    del features
    malloc_trim_if_large(style)
    return encoded


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
    progress: ProgressCallback | None = None,
    on_result: ResultCallback | None = None,
) -> Tensor:
    """The content in a style, or in a mix of styles.

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
        progress: called with the share that is done, from 0 to 1, now and then; stops the work by raising.
        on_result: called with a slice of the batch and its finished pictures, as soon as they are there. It takes them
            over: the returned tensor is then empty, so that a long clip needs no memory for all its frames.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device; (0, 3, H, W) with `on_result`.

    Raises:
        ValueError: an argument out of its range, or shapes that do not fit; the text says which.
    """
    check_picture(content, "content")
    check_steps(refine_steps)
    styles = [style] if isinstance(style, Tensor | dict) else list(style)
    options = TransferOptions(normalize_weights(style_weights, len(styles)), strength, temperature)
    masks = _checked_masks(style_masks, styles)
    refinement = _refinement(model, styles, masks, options, keep_color, refine_steps) if refine_steps else None
    encode_one = partial(encode_style, model, attention=attention, seed=seed, max_memory_gb=max_memory_gb)
    encoded = _encode_styles(encode_one, styles, masks)
    check_style_batches(encoded, len(content))
    mask = None if content_mask is None else fit_mask(content_mask, content, "content").to(content.device)
    sizes = DEFAULT_SIZES
    if strength > 0:
        release = all(isinstance(one, Tensor) for one in styles)
        sizes = content_budget(model, content, encoded, strength, max_memory_gb, batch_size_for(content), release)
    result = torch.empty(0 if on_result else len(content), *content.shape[1:], device=content.device)
    deliver: ResultCallback = on_result or result.__setitem__

    def run(items: slice, sizes: ChunkSizes, progress: ProgressCallback | None) -> None:
        if not encoded:  # memory ran out with the last items
            encoded.extend(_encode_styles(encode_one, styles, masks))
        batch_styles = [slice_batch(one, items) for one in encoded]
        if items.stop == len(content):
            encoded.clear()  # so that `transfer` frees each level when it has been used
        batch_mask = slice_batch(mask, items)
        share = sub_progress(progress, 0, TRANSFER_SHARE) if refinement else progress
        pictures = _stylize_batch(model, content[items], batch_styles, options, sizes, batch_mask, keep_color, share)
        if refinement:
            pictures = refinement(pictures, content, items, batch_mask, sub_progress(progress, TRANSFER_SHARE, 1))
        deliver(items, pictures)

    run_batched(run, content, sizes=sizes, progress=progress)
    return result


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
    steps: int,
) -> Refinement:
    """`refine` with the arguments of `stylize`, on the device of the model.

    Raises:
        ValueError: a style is already encoded, or its mask does not fit.
    """
    pictures = [one for one in styles if isinstance(one, Tensor)]
    if len(pictures) < len(styles):
        raise ValueError(
            "refine_steps needs the style as a picture, and an already encoded style came; give the picture itself "
            "instead of the result of encode_style"
        )
    for picture in pictures:
        check_picture(picture, "style")
    fitted = [None if mask is None else fit_mask(mask, one, "style") for mask, one in zip(masks, pictures, strict=True)]
    vgg = load_vgg(normalized=True).to(model.encoder.conv0.weight.device)

    def run(
        stylized: Tensor, content: Tensor, items: slice, mask: Tensor | None, progress: ProgressCallback | None
    ) -> Tensor:
        return refine(
            stylized, content[items], slice_batch(pictures, items), steps=steps, style_weights=options.weights,
            strength=options.strength, temperature=options.temperature, content_mask=mask,
            style_masks=slice_batch(fitted, items), keep_color=keep_color, vgg=vgg, progress=progress,
        )  # fmt: skip

    return run


def _encode_styles(
    encode_one: Callable[..., StyleFeatures],
    styles: Sequence[Tensor | StyleFeatures],
    masks: Sequence[Tensor | None],
) -> list[StyleFeatures]:
    """Styles that came as pictures are encoded under their masks; the others are taken as they are."""
    pairs = zip(styles, masks, strict=True)
    return [encode_one(style, mask=mask) if isinstance(style, Tensor) else style for style, mask in pairs]


def _stylize_batch(
    model: StyleTransferModel,
    content: Tensor,
    styles: Sequence[StyleFeatures],
    options: TransferOptions,
    sizes: ChunkSizes,
    mask: Tensor | None,
    keep_color: bool,
    progress: ProgressCallback | None,
) -> Tensor:
    """(B, 3, H, W) contents that run together, from pixels to pixels. Uses `styles` up, see `transfer`."""
    if options.strength == 0:
        return content.float().clamp(0, 1)
    content = clamp_pictures(content)
    features = encode(model.encoder, content, model.config.levels, sizes.tile_bytes)
    malloc_trim_if_large(content)
    stylized = transfer(
        model.fusion, features, content, styles, options,
        sizes=sizes, in_place=True, progress=sub_progress(progress, 0, DECODING_STARTS),
    )  # fmt: skip
    return decode(model.decoder, stylized._replace(mask=mask), keep_color=keep_color, tile_bytes=sizes.tile_bytes)

"""Passes from coarse to fine, so that strokes have the same size relative to pictures of any size.

A model paints strokes of a fixed size in pixels, which are too small to be seen in a photo of 12 megapixels. So the
picture is first painted at a small size. What that changed is enlarged and added to the content at the next size,
which is painted in turn: strokes that were laid at a small size stay, and each pass adds finer ones. The changes are
enlarged and not the painted pictures, which would lose the content's detail.

Letters: B batch, H W pixels. Pictures are RGB in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import cost
from ..models.fusion import FusedFeatures, StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.resize import resize_image
from ..runtime.kept import Shelf
from ..runtime.memory import malloc_trim_if_large
from ..runtime.progress import ProgressCallback, sub_progress
from .batching import batch_size_for, run_batched, slice_batch
from .chunked import TransferOptions
from .memory_budget import DEFAULT_SIZES, FLOAT_BYTES, ChunkSizes, content_budget
from .stages import (
    StylizedFeatures,
    at_strength,
    clamp_pictures,
    decode_everywhere,
    decode_features,
    encode,
    own_features,
    show_painted,
    transfer,
)
from .validation import check_style_batches

STROKE_SIDE = 512
"""Short side in pixels of a picture in which strokes have the size 1: the size that the models are looked at in."""
MAX_STROKE_SIZE = 8.0
"""The first pass then has a short side of 64 pixels, 4 positions of relu5_1."""
MAX_STYLE_SIDE = 1024
"""Largest short side of styles in pixels. Attention compares each content position with each style position; with
styles as large as the picture, its cost would grow with the square of the pixels."""
DECODING_STARTS = 0.9
"""Share of the time a picture takes that is over when only the decoder is left; for the progress bar."""


class Pass(NamedTuple):
    """One pass over a picture. size: (height, width). style_side: largest short side of styles, None for any."""

    size: tuple[int, int]
    style_side: int | None = None


def plan_passes(size: tuple[int, int], stroke_size: float) -> list[Pass]:
    """The passes for a picture of this (height, width), the last one at its size.

    The first has a short side of 512 / stroke_size pixels, and each of the others close to twice the side of the one
    before, in even steps. All but the last together have at most half as many pixels as the last. A picture that is
    less than 1.4 times as large as the first pass is painted in one, and every picture if the stroke size is 0.

    >>> [tuple(one) for one in plan_passes((3000, 4000), 1)]
    [((512, 683), 512), ((923, 1231), 923), ((1664, 2219), 1024), ((3000, 4000), 1024)]
    """
    if stroke_size == 0:
        return [Pass(size)]
    ratio = min(size) * stroke_size / STROKE_SIDE
    steps = max(0, round(math.log2(ratio)))
    scales = [ratio ** (step / steps - 1) for step in range(steps)]
    sizes = [(round(size[0] * scale), round(size[1] * scale)) for scale in scales]
    return [Pass(one, min(*one, MAX_STYLE_SIDE)) for one in [*sizes, size]]


def check_stroke_size(stroke_size: float) -> None:
    """ValueError unless the stroke size is one that `stylize` takes."""
    if not 0 <= stroke_size <= MAX_STROKE_SIZE:
        raise ValueError(
            f"stroke_size is {stroke_size}; a number from 0 to {MAX_STROKE_SIZE:g} is needed: 1 for strokes as in a "
            f"picture with a short side of {STROKE_SIDE} pixels, 0 for the strokes of a single pass"
        )


def repaint_start(content: Tensor, change: Tensor) -> Tensor:
    """What a pass paints: the content at its size, with what the pass before changed.

    Args:
        content: (B, 3, H, W) in [0, 1].
        change: (B, 3, h, w), the painted picture less the content at a smaller size.
    """
    enlarged = F.interpolate(change, size=content.shape[-2:], mode="bicubic")
    return enlarged.add_(content).clamp_(0, 1)


class Painting(NamedTuple):
    """What is the same in all passes over a batch.

    encode: styles reduced to a short side -> what attention needs of them. release: nobody else holds that. mask: where
    to paint. shelf: for what later calls can use again. The other fields are arguments of `stylize`.
    """

    model: StyleTransferModel
    content: Tensor
    encode: Callable[[int | None], list[StyleFeatures]]
    release: bool
    options: TransferOptions
    mask: Tensor | None
    keep_color: bool
    max_memory_gb: float | None
    shelf: Shelf | None = None


FinishCallback = Callable[[slice, Tensor, Tensor, ProgressCallback | None], None]
"""Called with a slice of the batch, its contents at the size of the pass, its painted pictures, and their progress."""


def run_passes(
    painting: Painting,
    stroke_size: float,
    transfer_share: float,
    finish: FinishCallback,
    progress: ProgressCallback | None,
) -> None:
    """All passes over a batch. Strength, mask and colours count in the last one, where the content is at its size.

    Args:
        painting: what to paint.
        stroke_size: see `stylize`.
        transfer_share: share of the last pass before `finish`; for the progress.
        finish: called with the results of the last pass.
        progress: called with the share that is done.
    """
    height, width = painting.content.shape[-2:]
    *coarse, last = plan_passes((height, width), stroke_size if painting.options.strength > 0 else 0)
    costs = [*(math.prod(one.size) for one in coarse), math.prod(last.size) / transfer_share]
    shares = [sum(costs[:index]) / sum(costs) for index in range(len(costs))]
    change: Tensor | None = None
    for one, start, stop in zip(coarse, shares, shares[1:], strict=False):
        coarse_pass = partial(_coarse_change, painting, one, change, sub_progress(progress, start, stop))
        change = _kept_pixels(painting, ("change", one), coarse_pass)
    _run_pass(painting, last, change, transfer_share, finish, sub_progress(progress, shares[-1], 1))


def _coarse_change(painting: Painting, one: Pass, change: Tensor | None, progress: ProgressCallback | None) -> Tensor:
    """What a pass at full strength changes in a batch, (B, 3, *one.size); arguments as in `_run_pass`."""
    painting = painting._replace(
        options=replace(painting.options, strength=1.0), mask=None, keep_color=False, shelf=None
    )
    changes = torch.empty(len(painting.content), 3, *one.size, device=painting.content.device, dtype=torch.float32)

    def keep(items: slice, content: Tensor, painted: Tensor, _progress: ProgressCallback | None) -> None:
        changes[items] = painted - content

    _run_pass(painting, one, change, 1.0, keep, progress)
    return changes


def _run_pass(
    painting: Painting,
    one: Pass,
    change: Tensor | None,
    transfer_share: float,
    finish: FinishCallback,
    progress: ProgressCallback | None,
) -> None:
    """One pass over a batch, as many items at a time as fit into memory.

    Args:
        painting: what to paint.
        one: at which size.
        change: (B, 3, h, w) what the pass before changed.
        transfer_share, finish, progress: see `run_passes`.
    """
    encoded = painting.encode(one.style_side)
    check_style_batches(encoded, len(painting.content))
    shape, sizes = painting.content[..., :1, :1].expand(-1, -1, *one.size), DEFAULT_SIZES
    if painting.options.strength > 0:
        sizes = content_budget(
            painting.model, shape, encoded, painting.options.strength, painting.max_memory_gb, batch_size_for(shape),
            painting.release,
        )  # fmt: skip

    def run(items: slice, sizes: ChunkSizes, progress: ProgressCallback | None) -> None:
        if not encoded:  # memory ran out with the last items
            encoded.extend(painting.encode(one.style_side))
        styles = [slice_batch(style, items) for style in encoded]
        if items.stop == len(painting.content):
            encoded.clear()  # so that `transfer` frees each level when it has been used
        content = _at_size(painting.content[items], one.size)
        start = None if change is None else repaint_start(content, change[items])
        shelf = painting.shelf.under(one, items.start, items.stop) if painting.shelf else None
        options = replace(painting.options, regions=slice_batch(painting.options.regions, items))
        batch = painting._replace(content=content, options=options, mask=slice_batch(painting.mask, items), shelf=shelf)
        pictures = _stylize_batch(batch, start, styles, sizes, sub_progress(progress, 0, transfer_share))
        finish(items, content, pictures, sub_progress(progress, transfer_share, 1))

    run_batched(run, shape, sizes=sizes, progress=progress)


def _at_size(content: Tensor, size: tuple[int, int]) -> Tensor:
    return content if content.shape[-2:] == size else resize_image(clamp_pictures(content), size=size)


def _stylize_batch(
    painting: Painting,
    start: Tensor | None,
    styles: Sequence[StyleFeatures],
    sizes: ChunkSizes,
    progress: ProgressCallback | None,
) -> Tensor:
    """(B, 3, H, W) contents that run together, from pixels to pixels.

    Args:
        painting: with these contents and their masks.
        start: what to paint in their place, for the same content; None for the contents themselves.
        styles: see `transfer`, which uses them up.
        sizes, progress: see `transfer`.
    """
    options, shelf = painting.options, painting.shelf
    if options.strength == 0:
        return painting.content.float().clamp(0, 1)
    content = clamp_pictures(painting.content)
    painting = painting._replace(content=content)

    def paint() -> Tensor:
        if shelf is not None and shelf.fits(_kept_bytes(painting)):
            return _paint_from(shelf, painting, start, styles, sizes, progress)
        stylized = _stylized_features(painting, start, styles, sizes, progress)
        return decode_everywhere(painting.model.decoder, stylized, sizes.tile_bytes)

    painted = _kept_pixels(painting, ("painted", options.strength), paint)
    return show_painted(painted, content, painting.mask, painting.keep_color)


def _kept_pixels(painting: Painting, name: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """Pixels from the shelf, if there is one, on the device of the content, which need not be that of the model."""
    return make() if painting.shelf is None else painting.shelf.get(name, make).to(painting.content.device)


def _kept_bytes(painting: Painting) -> int:
    """Bytes of what `_paint_from` keeps for other strengths: features of the result and of the content, and pixels."""
    fused = cost.fused_bytes(painting.model.config, painting.content)
    return 2 * (fused + FLOAT_BYTES * painting.content.numel())


def _paint_from(
    shelf: Shelf,
    painting: Painting,
    start: Tensor | None,
    styles: Sequence[StyleFeatures],
    sizes: ChunkSizes,
    progress: ProgressCallback | None,
) -> Tensor:
    """(B, 3, H, W) in [0, 1], painted everywhere; what serves other strengths too is kept. Arguments as above."""
    decoder, content, strength = painting.model.decoder, painting.content, painting.options.strength

    def features() -> tuple[FusedFeatures, FusedFeatures]:
        return _features_at_full_strength(painting, start, styles, sizes, progress)

    fused, own = shelf.fetched("features", features)
    stylized = at_strength(fused, own, content, strength)
    if strength == 1:
        return decode_everywhere(decoder, stylized, sizes.tile_bytes)
    unchanged = _kept_pixels(painting, "unchanged", lambda: decode_features(decoder, own, content, sizes.tile_bytes))
    return decode_everywhere(decoder, stylized, sizes.tile_bytes, unchanged)


def _features_at_full_strength(
    painting: Painting,
    start: Tensor | None,
    styles: Sequence[StyleFeatures],
    sizes: ChunkSizes,
    progress: ProgressCallback | None,
) -> tuple[FusedFeatures, FusedFeatures]:
    """Of the painted contents, and of the contents themselves; arguments as in `_stylize_batch`."""
    model, content = painting.model, painting.content
    features = encode(model.encoder, content if start is None else start, model.config.levels, sizes.tile_bytes)
    options, share = replace(painting.options, strength=1.0), sub_progress(progress, 0, DECODING_STARTS)
    stylized = transfer(model.fusion, features, content, styles, options, sizes=sizes, progress=share)
    if start is not None:
        features = encode(model.encoder, content, model.config.levels, sizes.tile_bytes)
    return stylized.fused, own_features(model.fusion, features)


def _stylized_features(
    painting: Painting,
    start: Tensor | None,
    styles: Sequence[StyleFeatures],
    sizes: ChunkSizes,
    progress: ProgressCallback | None,
) -> StylizedFeatures:
    """What the decoder needs, in as little memory as possible; arguments as in `_stylize_batch`."""
    model, content, strength = painting.model, painting.content, painting.options.strength
    options = painting.options if start is None else replace(painting.options, strength=1.0)
    features = encode(model.encoder, content if start is None else start, model.config.levels, sizes.tile_bytes)
    malloc_trim_if_large(content)
    stylized = transfer(
        model.fusion, features, content, styles, options,
        sizes=sizes, in_place=True, progress=sub_progress(progress, 0, DECODING_STARTS),
    )  # fmt: skip
    if start is None or strength == 1:
        return stylized
    own = own_features(model.fusion, encode(model.encoder, content, model.config.levels, sizes.tile_bytes))
    return at_strength(stylized.fused, own, content, strength)

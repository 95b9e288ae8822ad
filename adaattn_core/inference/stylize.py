"""What a user does: a picture repainted in the style of others.

Letters: B batch, H W pixels. Pictures are RGB in [0, 1]; masks are (B or 1, 1, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.masks import fit_mask
from ..runtime.memory import malloc_trim_if_large
from ..runtime.progress import ProgressCallback, sub_progress
from .batching import batch_size_for, run_batched, slice_batch
from .memory_budget import content_budget, style_budget
from .stages import Attention, decode, encode_checked, encode_style_features, use_up
from .validation import check_batch, check_picture, check_unit, normalize_weights

PAINTING_SHARE = 0.9
"""Of the time a picture takes, what is over when only the decoder is left; for the progress bar."""


def encode_style(
    model: StyleTransferModel,
    style: Tensor,
    *,
    mask: Tensor | None = None,
    attention: Attention = "exact",
    seed: int = 0,
    max_memory_gb: float | None = None,
) -> StyleFeatures:
    """All that `stylize` needs of a style, to be made once and used with many contents.

    Args:
        model: what will stylise.
        style: (B, 3, H, W), at least 16 pixels a side.
        mask: the part of the style to look at, same aspect as the style; at least one position above 0.5.
        attention: "exact" looks at every style position, "sampled" at 4096 random ones, as the published code does.
        seed: of that choice; the same seed gives the same picture. The global generator is not touched.
        max_memory_gb: see `stylize`.

    Raises:
        ValueError: wrong shape or size, an unknown attention, an empty mask.
    """
    check_picture(style, "style")
    fitted = None if mask is None else fit_mask(mask, style, "style")
    tile_bytes = style_budget(model, style, max_memory_gb).tile_bytes
    features = encode_checked(model.encoder, style, model.config.levels, tile_bytes=tile_bytes)
    malloc_trim_if_large(style)
    made = encode_style_features(model.fusion, features, mask=fitted, attention=attention, seed=seed)
    del features
    malloc_trim_if_large(style)
    return made


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
    progress: ProgressCallback | None = None,
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
        max_memory_gb: GiB that the process (on an accelerator, what is allocated there) may hold at the most, pictures
            and model included; None takes what is fastest. Where the picture cannot be painted in so little, a
            warning says what it needs, and it is painted in the smallest steps.
        progress: told the share that is done, from 0 to 1, now and then; stops the work by raising.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device.

    Raises:
        ValueError: an argument out of its range, or shapes that do not fit; the text says which.
    """
    check_picture(content, "content")
    check_unit("strength", strength)
    styles = [style] if isinstance(style, Tensor | dict) else list(style)
    weights = normalize_weights(style_weights, len(styles))
    masks = list(style_masks) if style_masks is not None else [None] * len(styles)
    if len(masks) != len(styles):
        raise ValueError(f"{len(masks)} style masks came for {len(styles)} styles; give one (or None) for each")
    encode = partial(encode_style, model, attention=attention, seed=seed, max_memory_gb=max_memory_gb)
    painted = _Styles(encode, styles, masks, len(content))
    fitted = None if content_mask is None else fit_mask(content_mask, content, "content").to(content.device)
    if strength == 0:
        return content.float().clamp(0, 1)

    budget = content_budget(
        model, content, painted.encoded(), strength, max_memory_gb, batch_size_for(content), painted.can_go
    )
    result = torch.empty(content.shape, device=content.device)

    def run(window: slice, chunk_bytes: int, progress: ProgressCallback | None) -> None:
        sizes = budget.with_blocks_of(chunk_bytes)
        features = encode_checked(model.encoder, content[window], model.config.levels, tile_bytes=sizes.tile_bytes)
        seen, picture = features.as_dict(), features.picture
        del features
        malloc_trim_if_large(picture)
        painting = use_up(
            model.fusion,
            seen,
            picture,
            [slice_batch(one, window) for one in painted.encoded(last=window.stop == len(content))],
            weights,
            strength=strength,
            temperature=temperature,
            mask=slice_batch(fitted, window),
            chunk_bytes=sizes.chunk_bytes,
            positions=sizes.positions,
            reuse=True,
            progress=sub_progress(progress, 0, PAINTING_SHARE),
        )
        result[window] = decode(model.decoder, painting, keep_color=keep_color, tile_bytes=sizes.tile_bytes)

    run_batched(run, content, chunk_bytes=budget.chunk_bytes, items=budget.items, progress=progress)
    return result


class _Styles:
    """Styles as attention reads them. Those that came as pictures are encoded here, and let go before their last use,
    so that their deep levels are free when the largest one is painted.

    Raises:
        ValueError: what `encode_style` raises, a mask that comes too late, or a batch that does not fit.
    """

    def __init__(
        self,
        encode: Callable[..., StyleFeatures],
        styles: Sequence[Tensor | StyleFeatures],
        masks: Sequence[Tensor | None],
        contents: int,
    ) -> None:
        self.encode, self.styles, self.masks = encode, styles, masks
        self.made: dict[int, StyleFeatures] = {}
        for style, mask in zip(styles, masks, strict=True):
            if mask is not None and not isinstance(style, Tensor):
                raise ValueError(
                    "a style mask came with an already encoded style; give the mask to encode_style instead"
                )
        for style in self.encoded():
            check_batch(style, contents)

    @property
    def can_go(self) -> bool:
        """Whether all of them came as pictures."""
        return all(isinstance(style, Tensor) for style in self.styles)

    def encoded(self, last: bool = False) -> list[StyleFeatures]:
        """All of them; after the `last` time, one more encodes them again: where memory ran out."""
        found = []
        for index, (style, mask) in enumerate(zip(self.styles, self.masks, strict=True)):
            if isinstance(style, Tensor):
                if index not in self.made:
                    self.made[index] = self.encode(style, mask=mask)
                style = self.made[index]
            found.append(style)
        if last:
            self.made.clear()
        return found

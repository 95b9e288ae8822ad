"""What a memory limit means: how much of the work is done at once. The one place where the limit becomes sizes.

Whole at one time are pictures, features that are still to be read, and features that are painted: that much a picture
needs at any limit. Strips of convolutions, pieces of a level and blocks of attention weights come on top, and are made
as small as the limit asks. Counted in float32, which is what all but the decoder computes in.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.attention import CHUNK_POSITIONS
from ..models.config import ModelConfig
from ..models.encoder import LEVELS
from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.chunked_attention import CHUNK_BYTES, default_chunk_bytes, tile_workers
from ..ops.key_pruning import CANDIDATES_PER_CHUNK
from ..ops.tiling import TILE_BYTES, tile_rows
from ..ops.winograd import kernel_bytes
from ..runtime.memory import memory_in_use
from ..runtime.threads import worker_count

logger = logging.getLogger(__name__)

FLOAT_BYTES = 4
SPARE = 0.25
"""Share of the room under a limit left to what is not counted: an allocator's gaps, buffers of libraries.
The test's process of 128 MiB of room stays 10 to 23 below it by this; with .15 it was once 0.7 above."""
CONV_WORKSPACE_LAYERS = 7
"""Of a strip's widest layer: what a convolution reads, what it writes, and 2.25 times as much as windows of it, and
again transformed; see winograd.py. Beside them there is a piece of a kernel."""
SMALLEST_BLOCK = 2**18
SMALLEST_PIECE = 2**10


class ChunkSizes(NamedTuple):
    """How much is done at once; the defaults are the fastest.

    tile_bytes: see `strips.tile_rows`. chunk_bytes: of a block of attention weights. positions: of the content, in
    a piece of a level. items: of a batch; None takes as many as `windows.run_batched` does by itself.
    """

    tile_bytes: int | None = None
    chunk_bytes: int = CHUNK_BYTES
    positions: int = CHUNK_POSITIONS
    items: int | None = None

    def with_blocks_of(self, chunk_bytes: int) -> ChunkSizes:
        """All sizes smaller in the proportion of the blocks: for when memory ran out nevertheless."""
        if chunk_bytes >= self.chunk_bytes:
            return self
        share = chunk_bytes / self.chunk_bytes
        tile_bytes = TILE_BYTES if self.tile_bytes is None else self.tile_bytes
        return ChunkSizes(max(1, int(share * tile_bytes)), chunk_bytes, max(1, int(share * self.positions)), self.items)


def style_budget(model: StyleTransferModel, style: Tensor, max_memory_gb: float | None) -> ChunkSizes:
    """Sizes for encoding a style, all pictures of it at once."""
    return _budget(model, style, 0, style_floats(model), max_memory_gb, "style")


def content_budget(
    model: StyleTransferModel,
    content: Tensor,
    styles: Sequence[StyleFeatures],
    strength: float,
    max_memory_gb: float | None,
    items: int,
    release_styles: bool = False,
) -> ChunkSizes:
    """Sizes for painting contents in styles, at most `items` at once; fewer where so many do not fit.

    `release_styles` says that the styles are there for this alone, so that their deep levels are free when relu3_1 is painted.
    """
    floats, keys = content_floats(model.config, strength), _style_work(styles, release_styles and items >= len(content))
    while items > 1 and max_memory_gb is not None:
        if _available_bytes(model, content[:items], keys, floats, max_memory_gb) > _workspace_bytes(
            model, content[:items], ChunkSizes()
        ):
            break
        items //= 2
    budget = _budget(model, content[:items], keys, floats, max_memory_gb, "content")
    return budget._replace(items=items)


def _budget(
    model: StyleTransferModel,
    picture: Tensor,
    keys: int,
    floats: float,
    max_memory_gb: float | None,
    role: str,
) -> ChunkSizes:
    fastest = ChunkSizes(chunk_bytes=default_chunk_bytes(_device(model)))
    if max_memory_gb is None:
        return fastest
    if not max_memory_gb > 0:
        raise ValueError(f"max_memory_gb is {max_memory_gb}; it must be above 0")
    left = _available_bytes(model, picture, keys, floats, max_memory_gb)
    if left >= _workspace_bytes(model, picture, fastest):
        return fastest
    smallest = ChunkSizes(1, SMALLEST_BLOCK, SMALLEST_PIECE)
    lacking = _workspace_bytes(model, picture, smallest) - left
    if lacking > 0:
        needed = max_memory_gb + lacking / (1 - SPARE) / 2**30
        logger.warning(
            "max_memory_gb is %.3g; a %s of %dx%d pixels needs about %.2f with this model and goes on in the smallest "
            "steps. Give that much, or a smaller picture.",
            max_memory_gb, role, picture.shape[-1], picture.shape[-2], needed,
        )  # fmt: skip
        return smallest
    row, margin = _row_bytes(model.config, picture), _margin(model.config)
    return ChunkSizes(
        max(1, (left - _kernel_bytes(model.config)) // CONV_WORKSPACE_LAYERS - 2 * margin * row),
        min(fastest.chunk_bytes // 2, max(SMALLEST_BLOCK, left // 4)),
        min(CHUNK_POSITIONS, max(SMALLEST_PIECE, left // 2 // max(_position_bytes(model)))),
    )


def _available_bytes(model: StyleTransferModel, picture: Tensor, keys: int, floats: float, max_memory_gb: float) -> int:
    """Bytes of the limit that neither the process, nor what is there whole, nor the work on the styles' keys takes."""
    pixels = len(picture) * picture.shape[-2] * picture.shape[-1]
    used = memory_in_use(_device(model))
    room = (max_memory_gb * 2**30 - used) * (1 - SPARE)
    return int(room - FLOAT_BYTES * floats * pixels) - keys


def content_floats(config: ModelConfig, strength: float = 1.0) -> float:
    """Numbers there whole at once for each pixel of a content: the most of encoding, attention and decoding."""
    channels, levels = config.channels, [LEVELS.index(level) for level in config.levels]
    painted = {level: channels[level] * _area(level) for level in levels}
    read = {level: _kept(config, level) for level in levels}
    attention = [
        sum(read[one] for one in levels if one <= level)
        + sum(painted[one] for one in levels if one > level or (one == level and strength < 1))
        + sum(channels[one] * _area(level) for one in levels if one < level)  # resized for the keys
        for level in levels
    ]
    widths = [*channels[2::-1], 3]
    blocks = [widths[index + 1] * _area(2 - index) for index in range(3)]
    fused = sum(painted[level] for level in levels[:2])
    decoding = fused + max(blocks[0] + blocks[1], blocks[1] + blocks[2] + 3)
    twice = fused + 3 if strength < 1 else 0  # the content's own, painted after it
    return 3 + twice + max(_encoding(config), *attention, decoding)


def style_floats(model: StyleTransferModel) -> float:
    """The same for a style: features, keys and values."""
    config = model.config
    kept = sum(_kept(config, LEVELS.index(level)) for level in config.levels)
    made = sum(
        (projected + config.channels[LEVELS.index(level)]) * _area(LEVELS.index(level))
        for level, _, projected in _widths(model)
    )
    return 3 + max(_encoding(config), kept + made)


def _area(level: int) -> float:
    """Positions of a level's grid for each pixel."""
    return float(0.25**level)


def _kept(config: ModelConfig, level: int, blocks: int = len(LEVELS)) -> float:
    """Numbers that the first `blocks` blocks keep for a level's keys; see `VGGEncoder.encode`."""
    read = [block for block in range(level + 1) if block == level or LEVELS[block] not in config.levels]
    return sum(config.channels[block] for block in read if block < blocks) * _area(level)


def _encoding(config: ModelConfig) -> float:
    """Features made so far, a block's input and its output."""
    levels = [LEVELS.index(level) for level in config.levels]
    passed_on = [0.0, *(config.channels[block] * _area(block + 1) for block in range(levels[-1])), 0.0]
    return max(
        sum(_kept(config, level, block + 1) for level in levels) + passed_on[block] + passed_on[block + 1]
        for block in range(levels[-1] + 1)
    )


def _workspace_bytes(model: StyleTransferModel, picture: Tensor, budget: ChunkSizes) -> int:
    """Bytes that sizes come to: convolutions and attention take turns."""
    channels_row, margin = _row_bytes(model.config, picture), _margin(model.config)
    row = picture[..., :1, :]
    per_position = channels_row // max(1, FLOAT_BYTES * len(picture) * picture.shape[-1])
    height = tile_rows(row, per_position, margin, budget.tile_bytes)
    convolutions = CONV_WORKSPACE_LAYERS * channels_row * min(height + 2 * margin, picture.shape[-2])
    convolutions += _kernel_bytes(model.config)
    attention = 0
    widths = _widths(model)
    for (level, stacked, _), position in zip(widths, _position_bytes(model), strict=True):
        rows, columns = (-(-side // 2 ** LEVELS.index(level)) for side in picture.shape[-2:])
        some = budget.positions * widths[0][1] // stacked // len(picture)
        positions = len(picture) * max(columns, min(some, rows * columns))
        attention = max(attention, positions * position)
    threads = tile_workers(_device(model), budget.chunk_bytes)
    side = math.isqrt(budget.chunk_bytes // (2 * FLOAT_BYTES * threads))
    widest = max(model.config.channels[LEVELS.index(level)] for level in model.config.levels)
    beside = FLOAT_BYTES * threads * 2 * side * 2 * widest  # values and sums of a tile, with their squares
    return max(convolutions, budget.chunk_bytes + beside + attention)


def _style_work(styles: Sequence[StyleFeatures], release_styles: bool) -> int:
    """Bytes that attention makes of a level's keys and values: the keys' leading components, and for each thread some
    rows of keys and values gathered. Less what has been let go of by then."""
    if not styles:
        return 0
    most, freed = 0, 0
    for level in reversed(styles[0]):
        pairs = [(style[level].key, style[level].value) for style in styles]
        work = max(key.numel() for key, _ in pairs)
        gathered = max(CANDIDATES_PER_CHUNK * (key.shape[-1] + 3 * value.shape[-1]) for key, value in pairs)
        most = max(most, work + worker_count(pairs[0][0].device) * gathered - freed)
        freed += sum(key.numel() + value.numel() for key, value in pairs) if release_styles else 0
    return FLOAT_BYTES * most


def _position_bytes(model: StyleTransferModel) -> list[int]:
    """Of a content position in a piece of each level: stacked key, query and its leading components, own features,
    statistics."""
    return [
        FLOAT_BYTES * (2 * stacked + 3 * projected + 5 * model.config.channels[LEVELS.index(level)])
        for level, stacked, projected in _widths(model)
    ]


def _widths(model: StyleTransferModel) -> list[tuple[str, int, int]]:
    """Levels with the widths of their stacked keys and of their queries."""
    config = model.config
    stacked = [sum(config.channels[: LEVELS.index(level) + 1]) for level in config.levels]
    return list(zip(config.levels, stacked, config.projection_channels or stacked, strict=True))


def _row_bytes(config: ModelConfig, picture: Tensor) -> int:
    """Of a row of the widest layer: in an encoder's block, or in the decoder's first with the skip."""
    widest = max(*(width / 2**block for block, width in enumerate(config.channels)), 2 * config.channels[2] / 4)
    return int(FLOAT_BYTES * len(picture) * picture.shape[-1] * widest)


def _kernel_bytes(config: ModelConfig) -> int:
    return max(map(kernel_bytes, config.channels))


def _device(model: StyleTransferModel) -> torch.device:
    return next(model.parameters()).device


def _margin(config: ModelConfig) -> int:
    return max(*config.encoder_convs, *config.decoder_convs)

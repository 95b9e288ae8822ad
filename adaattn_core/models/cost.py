"""What a model costs, from its configuration alone: its layers, and how many numbers are held in memory at once.

The memory limit (`inference/memory_budget.py`), the counted arithmetic (`benchmarking/scaling.py`) and the memory that
the ComfyUI nodes ask for are all computed from this one model. A block is a resolution of the encoder: block b has
0.25**b positions for each pixel of the picture (relu1_1 is block 0, relu5_1 block 4).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from torch import Tensor

from .config import ModelConfig
from .encoder import LEVELS


class Convolution(NamedTuple):
    """A 3x3 convolution at the resolution of `block`."""

    block: int
    in_channels: int
    out_channels: int


class AttentionLevel(NamedTuple):
    """Sizes of one level with attention.

    channels: of the features and values. key_channels: of the stacked key. projection_channels: of queries and keys.
    cell: side of the squares of style positions that share a key.
    """

    block: int
    channels: int
    key_channels: int
    projection_channels: int
    cell: int

    @property
    def feature_floats(self) -> float:
        """Numbers in the level's features for each pixel of the picture."""
        return self.channels * _area(self.block)


@cache
def attention_levels(config: ModelConfig) -> tuple[AttentionLevel, ...]:
    """The levels with attention, shallow to deep."""
    levels = []
    for index, name in enumerate(config.levels):
        block = LEVELS.index(name)
        key_channels = sum(config.channels[: block + 1])
        projection_channels = config.projection_channels[index] if config.projection_channels else key_channels
        cell = config.style_cells[index] if config.style_cells else 1
        levels.append(AttentionLevel(block, config.channels[block], key_channels, projection_channels, cell))
    return tuple(levels)


def encoder_convolutions(config: ModelConfig) -> list[Convolution]:
    """The encoder's 3x3 convolutions down to the deepest level with attention, which is the first of its block."""
    convolutions, width, deepest = [], 3, LEVELS.index(config.levels[-1])
    for block in range(deepest + 1):
        for _ in range(1 if block == deepest else config.encoder_convs[block]):
            convolutions.append(Convolution(block, width, config.channels[block]))
            width = config.channels[block]
    return convolutions


def decoder_convolutions(config: ModelConfig) -> list[Convolution]:
    """The decoder's convolutions, and before them the one that merges relu4_1 and relu5_1."""
    widths, convolutions = config.channels, []
    width = widths[2]
    if len(config.levels) > 1:
        convolutions += [Convolution(3, widths[3], widths[3]), Convolution(3, widths[3], widths[2])]
        width = 2 * widths[2]  # relu3_1 is concatenated
    for block, count, next_width in zip((2, 1, 0), config.decoder_convs, (widths[1], widths[0], 3), strict=True):
        for out_channels in [*[widths[block]] * (count - 1), next_width]:
            convolutions.append(Convolution(block, width, out_channels))
            width = out_channels
    return convolutions


def widest_row(config: ModelConfig) -> float:
    """Numbers in a row of the largest layer for each column of the picture."""
    convolutions = encoder_convolutions(config) + decoder_convolutions(config)
    return max(max(layer.in_channels, layer.out_channels) * 0.5**layer.block for layer in convolutions)


def halo(config: ModelConfig) -> int:
    """Rows that a tile needs above and below it: as many as the longest block has convolutions."""
    return max(*config.encoder_convs, *config.decoder_convs)


# ---------------------------------------------------------------- numbers held at once


def content_floats(config: ModelConfig, strength: float = 1.0) -> float:
    """Numbers that are held at once for each pixel of a content: the most of encoding, attention and decoding.

    Pictures and whole features are counted, temporary results of a tile or chunk are not. Below strength 1 the
    content's own fused features and the picture decoded from them come on top.
    """
    fused = fused_floats(config)
    unchanged = fused + 3 if strength < 1 else 0
    stages = _encoding_floats(config), _attention_floats(config, strength), _decoding_floats(config)
    return 3 + unchanged + max(stages)


def style_floats(config: ModelConfig) -> float:
    """Numbers that are held at once for each pixel of a style: the picture, its features, keys and values."""
    kept = sum(_kept_floats(config, level.block) for level in attention_levels(config))
    encoded = sum(
        (level.projection_channels + level.channels) * _area(level.block) for level in attention_levels(config)
    )
    return 3 + max(_encoding_floats(config), kept + encoded)


def _area(block: int) -> float:
    """Positions of a block's grid for each pixel."""
    return float(0.25**block)


def fused_floats(config: ModelConfig) -> float:
    """Numbers in the decoder's input for each pixel of a content."""
    return sum(level.feature_floats for level in attention_levels(config)[:2])


def fused_bytes(config: ModelConfig, pictures: Tensor) -> int:
    """Bytes of the decoder's input for contents (B, 3, H, W)."""
    return int(4 * fused_floats(config) * pictures[:, 0].numel())


def _kept_floats(config: ModelConfig, block: int, computed_blocks: int = len(LEVELS)) -> float:
    """What the first `computed_blocks` blocks of the encoder keep for the keys of the level of `block`.

    Levels without attention of their own are kept on the grid of this level only; see `VGGEncoder.encode`.
    """
    sources = [source for source in range(block + 1) if source == block or LEVELS[source] not in config.levels]
    return sum(config.channels[source] for source in sources if source < computed_blocks) * _area(block)


def _encoding_floats(config: ModelConfig) -> float:
    """Features kept so far, and the input and the output of a block."""
    blocks = [level.block for level in attention_levels(config)]
    boundaries = [0.0, *(config.channels[block] * _area(block + 1) for block in range(blocks[-1])), 0.0]
    return max(
        sum(_kept_floats(config, level, block + 1) for level in blocks) + boundaries[block] + boundaries[block + 1]
        for block in range(blocks[-1] + 1)
    )


def _attention_floats(config: ModelConfig, strength: float) -> float:
    """Features that attention still reads, features that it has computed, and features resized for the keys.

    Levels are done from the deepest up, and at full strength each replaces the features that it was computed from.
    """
    levels = attention_levels(config)
    return max(
        sum(_kept_floats(config, other.block) for other in levels if other.block <= level.block)
        + sum(
            other.feature_floats
            for other in levels
            if other.block > level.block or (other.block == level.block and strength < 1)
        )
        + sum(other.channels * _area(level.block) for other in levels if other.block < level.block)
        for level in levels
    )


def _decoding_floats(config: ModelConfig) -> float:
    """The decoder's input, and the input and the output of a block; the last block writes the picture twice."""
    outputs = [config.channels[1] * _area(2), config.channels[0] * _area(1), 3 * _area(0)]
    return fused_floats(config) + max(outputs[0] + outputs[1], outputs[1] + outputs[2] + 3)

"""The limit `max_memory_gb` as sizes of row tiles and chunks: how much of the work is done at a time. No other module
derives sizes from the limit.

Pictures, features that are still to be read and features that are computed are in memory as a whole at any limit
(`models/cost.py` counts them). Row tiles of convolutions, chunks of a level's content positions and chunks of attention
weights come on top, and are made as small as the limit requires. Everything is counted in float32, in which all but the
decoder computes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models import cost
from ..models.attention import CHUNK_POSITIONS
from ..models.config import ModelConfig
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
"""Share of the memory below the limit that is left to what is not counted: allocator gaps, buffers of libraries. With
0.25 the tested process, which may take 128 MiB, stays 10 to 23 MiB below its limit; with 0.15 it once exceeded it."""
CONV_WORKSPACE_LAYERS = 7
"""Memory of a convolution in units of the widest layer of a row tile: its input, its output, the input's Winograd tiles
(2.25 times the layer) and the same transformed; see winograd.py. A chunk of the transformed kernel comes on top."""
DIRECT_CONV_LAYERS = 4
"""The same of a direct convolution, which accelerators compute: input, padded input, output, and one layer to spare."""
MIN_CHUNK_BYTES = 2**18
MIN_POSITIONS = 2**10


class ChunkSizes(NamedTuple):
    """How much is done at a time; the defaults are the fastest sizes on a CPU.

    tile_bytes: of a layer in a row tile, see `tiling.tile_rows`. chunk_bytes: of a chunk of attention weights.
    positions: content positions of the first level whose queries and statistics exist together; of deeper levels, with
    wider keys, as many as take the same memory. items: of a batch; None: see `batching.batch_size_for`.
    """

    tile_bytes: int | None = None
    chunk_bytes: int = CHUNK_BYTES
    positions: int = CHUNK_POSITIONS
    items: int | None = None

    def halved(self) -> ChunkSizes:
        """Half of everything for one item: for when memory ran out nevertheless."""
        tile_bytes = TILE_BYTES if self.tile_bytes is None else self.tile_bytes
        return ChunkSizes(max(1, tile_bytes // 2), self.chunk_bytes // 2, max(1, self.positions // 2), self.items)


DEFAULT_SIZES = ChunkSizes()


def fastest_sizes(device: torch.device) -> ChunkSizes:
    """Sizes where memory is not limited."""
    return ChunkSizes(chunk_bytes=default_chunk_bytes(device))


def style_budget(model: StyleTransferModel, style: Tensor, max_memory_gb: float | None) -> ChunkSizes:
    """Sizes for encoding a style, all its pictures together."""
    if max_memory_gb is None:
        return fastest_sizes(_device(model))
    return _sizes_within(_Workload.of(model, style, cost.style_floats(model.config)), max_memory_gb, "style")


def content_budget(
    model: StyleTransferModel,
    content: Tensor,
    styles: Sequence[StyleFeatures],
    strength: float,
    max_memory_gb: float | None,
    items: int,
    release_styles: bool = False,
) -> ChunkSizes:
    """Sizes for stylising contents, at most `items` together; fewer where so many do not fit.

    Args:
        release_styles: the last batch releases the styles level by level, so that their deep levels are free when
            relu3_1 is computed.
    """
    if max_memory_gb is None:
        return fastest_sizes(_device(model))._replace(items=items)
    style_bytes = _style_workspace_bytes(styles, release_styles and items >= len(content))
    floats = cost.content_floats(model.config, strength)
    workload = _Workload.of(model, content[:items], floats, style_bytes)
    while items > 1 and workload.available_bytes(max_memory_gb) <= workload.workspace_bytes(DEFAULT_SIZES):
        items //= 2
        workload = _Workload.of(model, content[:items], floats, style_bytes)
    return _sizes_within(workload, max_memory_gb, "content")._replace(items=items)


def unlimited_bytes(config: ModelConfig, size: Sequence[int], device: torch.device) -> int:
    """Memory that stylising takes without a limit, in bytes: of pictures in styles of their own size, model aside.

    Args:
        config: of the model.
        size: (batch, 3, height, width) of the pictures that are processed together.
        device: where the work is done.
    """
    floats = cost.content_floats(config, strength=0.5) + cost.style_floats(config)
    conv_layers = CONV_WORKSPACE_LAYERS if device.type == "cpu" else DIRECT_CONV_LAYERS
    workload = _Workload(config, device, size[0], size[-2], size[-1], floats, conv_layers=conv_layers)
    return workload.whole_bytes + workload.workspace_bytes(fastest_sizes(device))


def _sizes_within(workload: _Workload, max_memory_gb: float, role: str) -> ChunkSizes:
    """The fastest sizes that fit into the limit; the smallest, and a warning, where none do."""
    fastest = fastest_sizes(workload.device)
    if not max_memory_gb > 0:
        raise ValueError(f"max_memory_gb is {max_memory_gb}; it must be above 0")
    available = workload.available_bytes(max_memory_gb)
    if available >= workload.workspace_bytes(fastest):
        return fastest
    smallest = ChunkSizes(1, MIN_CHUNK_BYTES, MIN_POSITIONS)
    lacking = workload.workspace_bytes(smallest) - available
    if lacking > 0:
        needed = max_memory_gb + lacking / (1 - SPARE) / 2**30
        logger.warning(
            "max_memory_gb is %.3g; a %s of %dx%d pixels needs about %.2f with this model and goes on in the smallest "
            "steps. Give that much, or a smaller picture.",
            max_memory_gb, role, workload.width, workload.height, needed,
        )  # fmt: skip
        return smallest
    return ChunkSizes(
        workload.tile_bytes_within(available),
        min(fastest.chunk_bytes // 2, max(MIN_CHUNK_BYTES, available // 4)),
        min(CHUNK_POSITIONS, max(MIN_POSITIONS, available // 2 // max(workload.position_bytes()))),
    )


@dataclass(frozen=True)
class _Workload:
    """Pictures that are processed together, and the memory that they need.

    floats: numbers for each pixel that are in memory as a whole. style_bytes: what attention computes from the styles.
    conv_layers: memory of a convolution in units of a layer, see CONV_WORKSPACE_LAYERS; a limit assumes the largest.
    """

    config: ModelConfig
    device: torch.device
    batch: int
    height: int
    width: int
    floats: float
    style_bytes: int = 0
    conv_layers: int = CONV_WORKSPACE_LAYERS

    @classmethod
    def of(cls, model: StyleTransferModel, pictures: Tensor, floats: float, style_bytes: int = 0) -> _Workload:
        batch, _, height, width = pictures.shape
        return cls(model.config, _device(model), batch, height, width, floats, style_bytes)

    @property
    def whole_bytes(self) -> int:
        """Bytes that are in memory as a whole."""
        return int(FLOAT_BYTES * self.floats * self.batch * self.height * self.width)

    def available_bytes(self, max_memory_gb: float) -> int:
        """What the limit leaves for tiles and chunks; may be negative."""
        free = (max_memory_gb * 2**30 - memory_in_use(self.device)) * (1 - SPARE)
        return int(free - FLOAT_BYTES * self.floats * self.batch * self.height * self.width) - self.style_bytes

    def workspace_bytes(self, sizes: ChunkSizes) -> int:
        """Bytes that tiles and chunks of these sizes need; convolutions and attention run one after the other."""
        return max(self._convolution_bytes(sizes.tile_bytes), self._attention_bytes(sizes))

    def tile_bytes_within(self, available: int) -> int:
        """The largest row tiles whose convolutions fit."""
        layer_bytes = (available - self._kernel_bytes()) // self.conv_layers
        return max(1, layer_bytes - 2 * cost.halo(self.config) * self._row_bytes())

    def position_bytes(self) -> list[int]:
        """Per content position of each level: stacked key, query and its leading components, content, statistics."""
        return [
            FLOAT_BYTES * (2 * level.key_channels + 3 * level.projection_channels + 5 * level.channels)
            for level in cost.attention_levels(self.config)
        ]

    def _convolution_bytes(self, tile_bytes: int | None) -> int:
        halo = cost.halo(self.config)
        row = torch.empty(1, device=self.device, dtype=torch.float32).expand(self.batch, 1, 1, self.width)
        rows = tile_rows(row, int(cost.widest_row(self.config)), halo, tile_bytes)
        tile = self._row_bytes() * min(rows + 2 * halo, self.height)
        return self.conv_layers * tile + self._kernel_bytes()

    def _attention_bytes(self, sizes: ChunkSizes) -> int:
        levels = cost.attention_levels(self.config)
        rows_bytes = 0
        for level, position_bytes in zip(levels, self.position_bytes(), strict=True):
            rows, columns = (-(-side // 2**level.block) for side in (self.height, self.width))
            positions = sizes.positions * levels[0].key_channels // level.key_channels // self.batch
            positions = self.batch * max(columns, min(positions, rows * columns))
            rows_bytes = max(rows_bytes, positions * position_bytes)
        workers = tile_workers(self.device, sizes.chunk_bytes)
        side = math.isqrt(sizes.chunk_bytes // (2 * FLOAT_BYTES * workers))
        widest = max(level.channels for level in levels)
        values_bytes = FLOAT_BYTES * workers * 2 * side * 2 * widest  # values and sums of a tile, with their squares
        return sizes.chunk_bytes + values_bytes + rows_bytes

    def _row_bytes(self) -> int:
        return int(FLOAT_BYTES * self.batch * self.width * cost.widest_row(self.config))

    def _kernel_bytes(self) -> int:
        return max(map(kernel_bytes, self.config.channels))


def _style_workspace_bytes(styles: Sequence[StyleFeatures], release_styles: bool) -> int:
    """Bytes that attention computes from a level's keys and values, less the levels that are released by then.

    These are the keys' leading components and, for each thread, the keys and values gathered for a group of queries.
    """
    if not styles:
        return 0
    most, released = 0, 0
    for level in reversed(styles[0]):
        keys, values = [style[level].key for style in styles], [style[level].value for style in styles]
        rows = max(key.shape[-1] + 3 * value.shape[-1] for key, value in zip(keys, values, strict=True))
        gathered = worker_count(keys[0].device) * CANDIDATES_PER_CHUNK * rows
        most = max(most, max(key.numel() for key in keys) + gathered - released)
        if release_styles:
            released += sum(key.numel() + value.numel() for key, value in zip(keys, values, strict=True))
    return FLOAT_BYTES * most


def _device(model: StyleTransferModel) -> torch.device:
    return next(model.parameters()).device

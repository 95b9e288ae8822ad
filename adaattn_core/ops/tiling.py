"""Row tiles for convolutions: exact results in little memory and within the CPU's cache.

A 3x3 convolution reads one row above and below. A row tile is therefore computed from a window with a halo of one row
per convolution of the block; the halo, where the padding at the window's edges is wrong, is cropped. At the edges of
the picture there is no halo, and the reflection padding is that of the complete picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TILE_BYTES = 8 * 2**20
"""Memory for one layer's activations in a row tile. Measured on two cores with 32 MiB of cache, first block of VGG-19
at 512 x 512: tiles of 4 to 8 MiB take .75 of the time of the complete picture, tiles of 16 MiB .9."""

DEVICE_TILE_BYTES = 512 * 2**20
"""The same on an accelerator, which needs large kernels: pictures up to 1024 x 2048 in one tile with VGG-19."""

MIN_HEIGHT_IN_HALOS = 16
"""Tiles are at least this many halos high, so that few rows are computed twice."""


class RowTile(NamedTuple):
    """Rows [start, stop) of a grid, computed from its rows [low, high)."""

    start: int
    stop: int
    low: int
    high: int

    def crop(self, window: Tensor) -> Tensor:
        """(B, C, high - low, W) -> (B, C, stop - start, W), without the halo."""
        return window[:, :, self.start - self.low : self.stop - self.low]


def row_tiles(rows: int, height: int, halo: int) -> Iterator[RowTile]:
    """Tiles of `height` rows that cover `rows`.

    >>> [tuple(tile) for tile in row_tiles(5, 2, 1)]
    [(0, 2, 0, 3), (2, 4, 1, 5), (4, 5, 3, 5)]
    """
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        yield RowTile(start, stop, max(0, start - halo), min(rows, stop + halo))


def tile_rows(row: Tensor, channels: int, halo: int, tile_bytes: int | None = None) -> int:
    """Height of a row tile: an even number of rows, at least 2.

    Args:
        row: (B, any, any, W), with the device and dtype of the computation.
        channels: of the widest layer.
        halo: see `row_tiles`.
        tile_bytes: memory for the activations of the widest layer; None: the fastest size.
    """
    row_bytes = len(row) * row.shape[-1] * channels * row.element_size()
    if tile_bytes is None:
        limit = TILE_BYTES if row.device.type == "cpu" else DEVICE_TILE_BYTES
        return 2 * max(limit // (2 * row_bytes), MIN_HEIGHT_IN_HALOS * halo // 2)
    return 2 * max(1, tile_bytes // (2 * row_bytes))


def empty_channels_last(
    like: Tensor, channels: int, rows: int, columns: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Uninitialised (B, channels, rows, columns) in channels_last format; dtype None: that of `like`."""
    size = (len(like), channels, rows, columns)
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)

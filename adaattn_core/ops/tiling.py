"""Convolutions over a picture, a strip of rows at a time: exact, in little memory, and inside a processor's cache.

A convolution reaches one row up and down. So a strip is computed from a window with a halo of as many rows as there
are convolutions in a row: what the window's edges get wrong is the halo, which is cut off. Edges of the picture
have no halo; there the mirrored border is the true one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TILE_BYTES = 8 * 2**20
"""Memory for one layer's activations in a strip. Measured on two cores with 32 MiB of cache, the first block of VGG-19
at 512 x 512: strips of 4 to 8 MiB take .75 of the time of the whole picture at once, of 16 MiB .9."""

DEVICE_TILE_BYTES = 512 * 2**20
"""The same on an accelerator, which wants large work: whole pictures up to 1024 x 2048 with the full-size model."""

MARGINS_PER_STRIP = 16
"""Strips are at least this many times as high as their halo, so that little is computed twice."""


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
    """Strips of `height` rows that make up `rows`.

    >>> [tuple(strip) for strip in row_tiles(5, 2, 1)]
    [(0, 2, 0, 3), (2, 4, 1, 5), (4, 5, 3, 5)]
    """
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        yield RowTile(start, stop, max(0, start - halo), min(rows, stop + halo))


def tile_rows(row: Tensor, channels: int, halo: int, tile_bytes: int | None = None) -> int:
    """Even number of rows whose activations fill `tile_bytes`.

    Args:
        row: (B, any, any, W), of the device and dtype the work is done in.
        channels: of the widest layer.
        halo: see `row_tiles`.
        tile_bytes: None chooses what is fastest, but never strips that are mostly halo.
    """
    row_bytes = len(row) * row.shape[-1] * channels * row.element_size()
    if tile_bytes is None:
        limit = TILE_BYTES if row.device.type == "cpu" else DEVICE_TILE_BYTES
        return 2 * max(limit // (2 * row_bytes), MARGINS_PER_STRIP * halo // 2)
    return 2 * max(1, tile_bytes // (2 * row_bytes))


def empty_channels_last(
    like: Tensor, channels: int, rows: int, columns: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Room for (B, channels, rows, columns), to be filled strip by strip; dtype that of `like` if none is named."""
    size = (len(like), channels, rows, columns)
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)

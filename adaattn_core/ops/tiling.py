"""Convolutions over a picture, a strip of rows at a time: exact, in little memory, and inside a processor's cache.

A convolution reaches one row up and down. So a strip is computed from a window with a margin of as many rows as there
are convolutions in a row: what the window's edges get wrong is the margin, which is cut off. Edges of the picture
have no margin; there the mirrored border is the true one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

STRIP_BYTES = 8 * 2**20
"""Memory for one layer's activations in a strip. Measured on two cores with 32 MiB of cache, the first block of VGG-19
at 512 x 512: strips of 4 to 8 MiB take .75 of the time of the whole picture at once, of 16 MiB .9."""

DEVICE_STRIP_BYTES = 512 * 2**20
"""The same on an accelerator, which wants large work: whole pictures up to 1024 x 2048 with the full-size model."""

MARGINS_PER_STRIP = 16
"""Strips are at least this many times as high as their margin, so that little is computed twice."""


class Strip(NamedTuple):
    """Rows [start, stop) of a grid, computed from its rows [low, high)."""

    start: int
    stop: int
    low: int
    high: int

    def cut(self, computed: Tensor) -> Tensor:
        """(B, C, high - low, W) -> the strip itself."""
        return computed[:, :, self.start - self.low : self.stop - self.low]


def strips(rows: int, height: int, margin: int) -> Iterator[Strip]:
    """Strips of `height` rows that make up `rows`.

    >>> [tuple(strip) for strip in strips(5, 2, 1)]
    [(0, 2, 0, 3), (2, 4, 1, 5), (4, 5, 3, 5)]
    """
    for start in range(0, rows, height):
        stop = min(start + height, rows)
        yield Strip(start, stop, max(0, start - margin), min(rows, stop + margin))


def strip_height(row: Tensor, channels: int, margin: int, strip_bytes: int | None = None) -> int:
    """Even number of rows whose activations fill `strip_bytes`.

    Args:
        row: (B, any, any, W), of the device and dtype the work is done in.
        channels: of the widest layer.
        margin: see `strips`.
        strip_bytes: None chooses what is fastest, but never strips that are mostly margin.
    """
    row_bytes = len(row) * row.shape[-1] * channels * row.element_size()
    if strip_bytes is None:
        limit = STRIP_BYTES if row.device.type == "cpu" else DEVICE_STRIP_BYTES
        return 2 * max(limit // (2 * row_bytes), MARGINS_PER_STRIP * margin // 2)
    return 2 * max(1, strip_bytes // (2 * row_bytes))


def canvas(like: Tensor, channels: int, rows: int, columns: int, dtype: torch.dtype | None = None) -> Tensor:
    """Room for (B, channels, rows, columns), to be filled strip by strip; dtype that of `like` if none is named."""
    size = (len(like), channels, rows, columns)
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)

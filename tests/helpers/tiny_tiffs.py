"""TIFF files written tag by tag, in one strip or one for each plane, of kinds that Pillow does not write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REPORTS = Path(__file__).parents[1] / "data" / "reports"
SIDE = 16
_SHORT, _LONG = 3, 4


def write_tiff(path: Path, pages: Sequence[tuple[bytes, Mapping[int, tuple[int, ...]]]], order: str = "<") -> None:
    """A TIFF of pages of 16 x 16 pixels.

    Args:
        path: of the file.
        pages: pixel data, and the tags beside size, strip and one sample: tag number -> values.
        order: "<" for little endian, ">" for big endian.
    """
    data = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    link = 4
    for pixels, more in pages:
        tags = {256: (SIDE,), 257: (SIDE,), 259: (1,), 262: (1,), 277: (1,), 278: (SIDE,), **more}
        strips = tags[277][0] if tags.get(284) == (2,) else 1
        size = len(pixels) // strips
        tags |= {273: tuple(len(data) + size * strip for strip in range(strips)), 279: (size,) * strips}
        data += pixels + b"\0" * (len(pixels) % 2)
        extra = b""
        directory = struct.pack(order + "H", len(tags))
        start = len(data) + 2 + 12 * len(tags) + 4
        for tag, values in sorted(tags.items()):
            kind = _SHORT if max(values) < 2**16 else _LONG
            packed = struct.pack(f"{order}{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
            if len(packed) > 4:
                packed, extra = struct.pack(order + "I", start + len(extra)), extra + packed
            directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        data = data[:link] + struct.pack(order + "I", len(data)) + data[link + 4 :]
        link = len(data) + len(directory)
        data += directory + bytes(4) + extra + b"\0" * (len(extra) % 2)
    path.write_bytes(data)


def ramp(dtype: str, white: float) -> NDArray[np.generic]:
    """(16, 16) from 0 on the left to `white` on the right, in 15 equal steps."""
    steps = np.arange(SIDE) * (white / (SIDE - 1))
    return np.tile(steps.astype(dtype) if "f" in dtype else steps.round().astype(dtype), (SIDE, 1))

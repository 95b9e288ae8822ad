"""Decoded frames to upright pictures in the colours of BT.709, over white where they are transparent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.remarks import remark
from .files import StrPath
from .images import from_numpy

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame

# Numbers of ITU-T H.273, as FFmpeg uses them: matrices, transfer functions, primaries.
BT709, BT601, UNKNOWN = 1, 5, 2
_TRANSFERS = {16: "PQ", 18: "HLG"}
_PRIMARIES = {9: "BT.2020", 10: "XYZ", 11: "DCI-P3", 12: "Display P3"}
HDR_WHITE = 203
"""cd/m² of white in HDR. Source: ITU-R BT.2408, reference level of graphics white."""


class Orientation(NamedTuple):
    """What makes a stored frame upright: rows and columns exchanged first, then mirrored along x and y."""

    is_transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The upright pixels of stored ones, (H, W, C)."""
        if self.is_transposed:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def read_orientation(picture: VideoFrame, path: StrPath) -> Orientation:
    """The orientation that the display matrix of a frame asks for: one of eight.

    Source: FFmpeg, libavutil/display.h: x' = a x + c y, y' = b x + d y, with x to the right and y downwards.
    """
    entries: list[Any] = list(picture.side_data)
    matrix = next((bytes(data) for data in entries if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    used, unused = ((b, c), (a, d)) if is_transposed else ((a, d), (b, c))
    if not any(used) or max(map(abs, unused)) > 0.01 * max(map(abs, used)):
        remark(str(path), "its rotation is no multiple of 90 degrees; the nearest one is used")
    return Orientation(is_transposed, *((c < 0, b < 0) if is_transposed else (a < 0, d < 0)))


class ClipPixels:
    """Converts the frames of a clip; `size` is (height, width) of the upright frames."""

    def __init__(self, path: StrPath, first: VideoFrame) -> None:
        self.path, self.stored = path, (first.height, first.width)
        self.orientation = read_orientation(first, path)
        self.size = self.stored[::-1] if self.orientation.is_transposed else self.stored
        self._graph: Graph | None = None
        self._graph_key: object = None

    def image(self, picture: VideoFrame) -> Tensor:
        """A frame as (1, 3, H, W) in [0, 1], in the size of the clip."""
        if picture.color_trc in _TRANSFERS or picture.color_primaries in _PRIMARIES:
            picture = self._to_bt709(picture)
        space = picture.colorspace
        if space == UNKNOWN:  # the guess that players make
            space = BT709 if picture.width >= 1280 or picture.height > 576 else BT601
        height, width = self.stored
        has_alpha = picture.format.has_palette or any(part.is_alpha for part in picture.format.components)
        pixels = picture.to_ndarray(
            format="rgba" if has_alpha else "rgb24", width=width, height=height,
            src_colorspace=space, dst_colorspace=BT601,
        )  # fmt: skip
        return from_numpy(self.orientation.apply(self._over_white(pixels) if has_alpha else pixels))

    def _over_white(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """RGB of (H, W, 4), as `load_image` gives it."""
        colour, alpha = pixels[..., :3], pixels[..., 3:]
        if bool((alpha == 255).all()):
            return colour
        remark(str(self.path), "its transparent parts are painted over white, since the clip that is written has none")
        return (colour / np.float32(255)) * (alpha / np.float32(255)) + (1 - alpha / np.float32(255))

    def _to_bt709(self, picture: VideoFrame) -> VideoFrame:
        """The frame in the colours of BT.709, by FFmpeg's filter `scale`.

        Transfer functions of HDR become that of sRGB, with HDR_WHITE as white; more light than that is clipped.
        """
        is_hdr = picture.color_trc in _TRANSFERS
        if not is_hdr and picture.color_trc in (UNKNOWN, 0):
            picture.color_trc = BT709
        key = (picture.format.name, picture.width, picture.height, picture.color_trc, picture.color_primaries)
        if self._graph is None or self._graph_key != key:
            self._graph, self._graph_key = _color_graph(picture, is_hdr), key
            names = [_TRANSFERS.get(picture.color_trc), _PRIMARIES.get(picture.color_primaries)]
            kind = ", ".join(name for name in names if name)
            clipped = f"; light above {HDR_WHITE} cd/m² becomes white" if is_hdr else ""
            remark(str(self.path), f"its {'HDR' if is_hdr else 'wide'} colours ({kind}) are mapped to BT.709{clipped}")
        self._graph.push(picture)
        return cast("VideoFrame", self._graph.pull())


def _color_graph(picture: VideoFrame, is_hdr: bool) -> Graph:
    """A graph of FFmpeg's filters that maps frames like this one to the primaries of BT.709.

    Raises:
        ValueError: PyAV brings an FFmpeg older than 8.0, whose `scale` does not convert colours.
    """
    import av
    from av.filter import Graph

    graph = Graph()
    transfer = "iec61966-2-1" if is_hdr else "bt709"
    try:
        nodes = [
            graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
            ),
            graph.add("scale", f"out_transfer={transfer}:out_primaries=bt709:intent=relative_colorimetric"),
            graph.add("format", "gbrp"),
            graph.add("buffersink"),
        ]
    except (ValueError, av.error.FFmpegError) as error:
        raise ValueError(
            "the clip has colours of HDR or BT.2020, which this PyAV cannot map to BT.709. "
            "Install a newer one: pip install -U av"
        ) from error
    graph.link_nodes(*nodes).configure()
    return graph

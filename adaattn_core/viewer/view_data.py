"""The data of the attention viewer: attention of a grid of content points over a grid of style cells, in one file.

The file is a safetensors file of at most MAX_BYTES. For every level of the model it holds, in this order of points and
cells (row by row):

    weights.LEVEL   (points, cells) uint8, quantized: a weight is largest * (value / 255) ** 2
    largest.LEVEL   (points,) float32, the largest weight of each point
    entropy.LEVEL   (points,) float32, 0 where attention has one style position only, 1 where it is even

and the two pictures as JPEG files, `content` and `style`, uint8. Sizes, grids and levels are JSON in the metadata
entry `view`, see `_description`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from ..inference.attention_map import PointAttention
from ..inference.batching import slice_batch
from ..inference.stages import ImageFeatures
from ..io.images import to_pil
from ..models.encoder import receptive_field, stride
from ..models.fusion import MultiLevelFusion
from ..ops.resize import resize_image
from ..runtime.progress import ProgressCallback

MAX_BYTES = 2_000_000
POINTS = CELLS = 729
"""Most points of the content, and most cells of the style. Three levels then take 1.6 MB; with 27 x 27 of each, a cell
of a picture of 512 x 512 pixels is 19 pixels wide, less than a receptive field of relu3_1."""

PICTURE_SIDE = 512
PICTURE_BYTES = 150_000
"""Longest side and size of the pictures in the file; noise gets a lower quality than a photograph."""
QUALITIES = (88, 80, 70, 55, 40, 25, 10)

VERSION = 1
CHUNK_WEIGHTS = 2**24
"""Attention weights that exist at one time: 64 MiB in float32."""


class LevelTable(NamedTuple):
    """Attention of every point at one level."""

    weights: Tensor
    """(points, cells) float32: the share of the attention that a cell of the style gets; rows sum to 1."""
    entropy: Tensor
    """(points,) float32: entropy over the style positions as a share of the largest possible one."""


class Grid(NamedTuple):
    """Equal rectangles that divide a picture."""

    rows: int
    columns: int

    def centers(self) -> list[tuple[float, float]]:
        """x, y of the centre of each rectangle, from 0 to 1, row by row."""
        return [
            ((column + 0.5) / self.columns, (row + 0.5) / self.rows)
            for row in range(self.rows)
            for column in range(self.columns)
        ]


def view_data(
    fusion: MultiLevelFusion,
    content: ImageFeatures,
    style: ImageFeatures,
    convs: Sequence[int],
    *,
    temperature: float = 1.0,
    titles: tuple[str, str] = ("", ""),
    progress: ProgressCallback | None = None,
) -> bytes:
    """The file that the viewer shows. Of a batch it is the first content with the first style; the file says so.

    Args:
        fusion: a model's attention.
        content, style: features on its device.
        convs: convolutions in each block of their encoder, for the receptive fields.
        temperature: as in `TransferOptions`.
        titles: names of content and style to show.
        progress: called with the completed fraction; stops the work by raising.

    Raises:
        ValueError: a temperature that is not positive.
    """
    batch = len(content.picture)
    content, style = slice_batch(content, slice(0, 1)), slice_batch(style, slice(0, 1))
    points, cells = viewer_grid(content.picture, POINTS), viewer_grid(style.picture, CELLS)
    tensors = {"content": _jpeg(content.picture), "style": _jpeg(style.picture)}
    for index, level in enumerate(fusion.levels):
        table = level_table(PointAttention(fusion, content, style, level, temperature), points, cells, style.picture)
        values, largest = quantize(table.weights)
        tensors |= {f"weights.{level}": values, f"largest.{level}": largest, f"entropy.{level}": table.entropy}
        if progress is not None:
            progress((index + 1) / len(fusion.levels))
    description = {
        "version": VERSION,
        "content": _description(content.picture, points, titles[0]),
        "style": _description(style.picture, cells, titles[1]),
        "levels": [
            {"name": level, "receptive_field": receptive_field(convs, level), "stride": stride(level)}
            for level in fusion.levels
        ],
        "temperature": temperature,
        "batch": batch,
    }
    return bytes(save(tensors, {"view": json.dumps(description)}))


def viewer_grid(picture: Tensor, limit: int) -> Grid:
    """Nearly square rectangles over a picture (B, 3, H, W): at most `limit`, none smaller than 4 pixels a side."""
    height, width = picture.shape[-2:]
    rows = min(max(1, round(math.sqrt(limit * height / width))), limit, -(-height // 4))
    columns = min(max(1, round(rows * width / height)), limit // rows, -(-width // 4))
    return Grid(rows, columns)


def level_table(attention: PointAttention, points: Grid, cells: Grid, style: Tensor) -> LevelTable:
    """Attention of every point of a grid over the cells of another, in chunks of points.

    The weight of a style position is spread evenly over its pixels, so that cells of any size hold their share of it.

    Args:
        attention: of contents of batch 1.
        points: grid of the content; the centre of each rectangle is a point.
        cells: grid of the style.
        style: (1, 3, H, W).
    """
    centers, positions = points.centers(), attention.grid[0] * attention.grid[1]
    rows = overlaps(cells.rows, attention.grid[0], attention.step / style.shape[-2]).to(style.device)
    columns = overlaps(cells.columns, attention.grid[1], attention.step / style.shape[-1]).to(style.device)
    chunk, tables = max(1, CHUNK_WEIGHTS // positions), []
    for start in range(0, len(centers), chunk):
        weights = attention.weights(centers[start : start + chunk])[0]
        entropy = torch.special.entr(weights).sum(dim=(1, 2)) / max(math.log(positions), 1e-9)
        tables.append(LevelTable((rows @ weights @ columns.mT).flatten(1).cpu(), entropy.clamp(0, 1).cpu()))
    return LevelTable(*map(torch.cat, zip(*tables, strict=True)))


def overlaps(cells: int, positions: int, step: float) -> Tensor:
    """(cells, positions) float32: the share of each position's length that lies in each cell; columns sum to 1.

    Args:
        cells: number of equal parts of the picture's side.
        positions: number of style positions along it.
        step: their length as a share of the side; the last one ends with the picture.
    """
    ends = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    edges = (torch.arange(positions + 1, dtype=torch.float64) * step).clamp(max=1)
    shared = torch.minimum(ends[1:, None], edges[1:]) - torch.maximum(ends[:-1, None], edges[:-1])
    return (shared.clamp(min=0) / (edges[1:] - edges[:-1])).float()


def quantize(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(points, cells) weights -> uint8 values and the largest weight of each point.

    The root makes small weights visible: a step is at most 1/128 of the largest weight, and 1/65025 near 0.
    """
    largest = weights.amax(dim=1)
    values = (weights / largest[:, None].clamp_min(1e-30)).sqrt() * 255
    return values.round().to(torch.uint8), largest


def dequantize(values: Tensor, largest: Tensor) -> Tensor:
    """Inverse of `quantize`, within half a step."""
    return largest[:, None] * (values.float() / 255).square()


def _description(picture: Tensor, grid: Grid, title: str) -> dict[str, Any]:
    height, width = picture.shape[-2:]
    return {"width": width, "height": height, "rows": grid.rows, "columns": grid.columns, "title": title}


def _jpeg(picture: Tensor) -> Tensor:
    """(1, 3, H, W) -> a JPEG file as (bytes,) uint8: the best of QUALITIES that PICTURE_BYTES hold."""
    picture = picture.cpu()
    if max(picture.shape[-2:]) > PICTURE_SIDE:
        picture = resize_image(picture, long_side=PICTURE_SIDE)
    image = to_pil(picture)
    for quality in QUALITIES:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= PICTURE_BYTES:
            break
    return torch.from_numpy(np.frombuffer(file.getvalue(), dtype=np.uint8).copy())

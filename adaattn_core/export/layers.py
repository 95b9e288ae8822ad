"""Layers of the model as nodes of a graph, each with the values of its module. B batch, C channels, H W sizes."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from ..models.encoder import ReflectConv2d
from ..ops.statistics import VARIANCE_EPSILON
from .graph import Graph


def conv(g: Graph, x: str, module: nn.Conv2d, name: str, tiny: bool = False) -> str:
    """A convolution; a ReflectConv2d pads first.

    Args:
        x: (B, C, H, W).
        module: the convolution.
        name: of the module, for its weights.
        tiny: whether an axis may have a single position.
    """
    assert module.bias is not None
    x = g.cast(x, module.weight.dtype)
    if isinstance(module, ReflectConv2d):
        x = _mirrored(g, x) if tiny else g.op("Pad", x, [0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
    return g.op("Conv", x, g.weight(f"{name}.weight", module.weight), g.weight(f"{name}.bias", module.bias))


def _mirrored(g: Graph, x: str) -> str:
    """`reflect_pad1`, also where an axis has a single position, which the operator Pad refuses."""
    size = g.size(x)
    for axis in (2, 3):
        last = g.op("Sub", g.element(size, axis - 2), [1])
        before, after = g.op("Min", last, [1]), g.op("Max", g.op("Sub", last, [1]), [0])
        rows = g.op("Concat", before, g.indices(g.element(size, axis - 2)), after, axis=0)
        x = g.op("Gather", x, rows, axis=axis)
    return x


def pool(g: Graph, x: str) -> str:
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)), the maximum of each square."""
    return g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


def resized_to(g: Graph, x: str, size: str) -> str:
    """(B, C, H, W) resized to a coarser grid, nearest as torch does: row i is row floor(i H / h)."""
    source = g.size(x)
    for axis in (2, 3):
        old, new = g.element(source, axis - 2), g.element(size, axis - 2)
        x = g.op("Gather", x, g.op("Div", g.op("Mul", g.indices(new), old), new), axis=axis)
    return x


def upsampled(g: Graph, x: str, size: str, mode: str, factor: int = 2) -> str:
    """(B, C, h, w) enlarged by a factor and cropped to `size`; `mode` is "nearest" or "bilinear"."""
    scales = [1.0, 1.0, float(factor), float(factor)]
    if mode == "nearest":
        kind = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        kind = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return g.op("Slice", g.op("Resize", x, "", scales, **kind), [0, 0], size, [2, 3])


def cell_means(g: Graph, x: str, side: int) -> str:
    """(B, C, H, W) -> (B, C, ceil(H / side), ceil(W / side)), the mean of each cell; cells at an edge may be smaller.

    Zeros fill the last cells, and the mean of as many ones and zeros corrects for them: the operator's own rounding up
    has changed between versions.
    """
    size = g.size(x)
    missing = g.op("Sub", g.op("Mul", g.op("Div", g.op("Add", size, [side - 1]), [side]), [side]), size)
    pads = g.op("Concat", [0, 0, 0, 0, 0, 0], missing, axis=0)
    ones = g.op("Expand", np.ones((1, 1, 1, 1), np.float32), g.op("Concat", [1, 1], size, axis=0))
    means = [
        g.op("AveragePool", g.op("Pad", one, pads), kernel_shape=[side, side], strides=[side, side])
        for one in (x, ones)
    ]
    return g.op("Div", *means)


def normalized(g: Graph, x: str) -> str:
    """Mean 0 and standard deviation 1 in each channel, as `normalize_channels`."""
    centered = g.op("Sub", x, g.op("GlobalAveragePool", x))
    height, width = (g.element(g.size(x), axis) for axis in (0, 1))
    count = g.op("Cast", g.op("Mul", height, width), to=1)
    unbiased = g.op("Div", count, g.op("Max", g.op("Sub", count, 1.0), 1.0))
    variance = g.op("Mul", g.op("GlobalAveragePool", g.op("Mul", centered, centered)), unbiased)
    return g.op("Div", centered, g.op("Sqrt", g.op("Add", variance, VARIANCE_EPSILON)))


def positions(g: Graph, x: str) -> str:
    """(B, C, H, W) -> (B, H W, C)."""
    return g.op("Transpose", g.op("Reshape", x, [0, 0, -1]), perm=[0, 2, 1])


def unit_length(g: Graph, x: str, added: float = 0.0) -> str:
    """(B, N, P) scaled to length 1; `added` to each length before the division."""
    length = g.op("Sqrt", g.op("ReduceSum", g.op("Mul", x, x), [2], keepdims=1))
    return g.op("Div", x, g.op("Add", length, added) if added else g.op("Max", length, math.sqrt(1e-24)))

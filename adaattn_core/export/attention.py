"""Attention at one level as nodes of a graph: a loop over chunks of content positions, so that memory is bounded.

Shape letters: B batch, C value channels, P width of queries and keys, Nc content positions, Ns style positions, R rows
of a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..models.attention import AdaAttention
from ..ops.chunked_attention import STD_FLOOR
from ..ops.moments import NORM_EPSILON
from .graph import LOOP_CONDITION, LOOP_INDEX, Graph, Shape
from .layers import cell_means, conv, normalized, positions, unit_length, upsampled

CHUNK_PAIRS = 2**23
"""Pairs of content and style positions of a chunk: 32 MiB of logits, and as much of weights."""


class StyleValues(NamedTuple):
    """What the content needs of a style at one level: names of values."""

    key: str
    """(1, Ns, P)."""
    value: str
    """(1, Ns, 2 C): values less their mean over positions, and their squares plus the variance within each cell."""
    center: str
    """(1, 1, C), that mean."""


def style_values(g: Graph, level: str, attention: AdaAttention, stacked: str, features: dict[str, str]) -> StyleValues:
    """Keys and values of a style, as `AdaAttention.encode_style` and `values_and_squares`.

    Args:
        level: names the weights.
        attention: of that level.
        stacked: (1, K, H, W), the stacked key of the style.
        features: of the style.
    """
    name = f"fusion.attention.{level}"
    value, variance = conv(g, features[level], attention.value_proj, f"{name}.value_proj"), None
    if attention.cell > 1:
        mean = cell_means(g, value, attention.cell)
        within = g.op("Sub", value, upsampled(g, mean, g.size(value), "nearest", attention.cell))
        value, variance = mean, cell_means(g, g.op("Mul", within, within), attention.cell)
        stacked = cell_means(g, stacked, attention.cell)
    center = g.op("GlobalAveragePool", value)
    centered = g.op("Sub", value, center)
    squares = g.op("Mul", centered, centered)
    if variance is not None:
        squares = g.op("Add", squares, variance)
    key = positions(g, conv(g, stacked, attention.key_proj, f"{name}.key_proj"))
    return StyleValues(
        _directions(g, attention, key),
        positions(g, g.op("Concat", centered, squares, axis=1)),
        positions(g, center),
    )


def _directions(g: Graph, attention: AdaAttention, vectors: str) -> str:
    """Queries or keys as the logits' product takes them."""
    if attention.similarity == "cosine":
        return unit_length(g, vectors, added=NORM_EPSILON)
    return vectors if attention.logit_scale is None else unit_length(g, vectors)


def hand_on(g: Graph, level: str, attention: AdaAttention, values: StyleValues) -> StyleValues:
    """Makes what a style has at a level outputs of its graph, and returns their names and those of another's inputs."""
    width, channels = attention.key_proj.out_channels, attention.value_proj.out_channels
    positions = f"{level}_positions"
    shapes: list[Shape] = [(1, positions, width), (1, positions, 2 * channels), (1, 1, channels)]
    names = StyleValues(*(f"{level}_{name}" for name in StyleValues._fields))
    for name, value, shape in zip(names, values, shapes, strict=True):
        g.output(name, value, shape)
    return names


def queries(g: Graph, level: str, attention: AdaAttention, stacked: str) -> str:
    """(B, Nc, P), what the logits' product takes of a content.

    Args:
        level: names the weights.
        attention: of that level.
        stacked: (B, K, H, W), the stacked key of the content.
    """
    query = positions(g, conv(g, stacked, attention.query_proj, f"fusion.attention.{level}.query_proj"))
    query = _directions(g, attention, query)
    return query if attention.logit_scale is None else g.op("Mul", query, attention.logit_scale)


def restyled(
    g: Graph, level: str, attention: AdaAttention, query: str, features: dict[str, str], style: StyleValues
) -> str:
    """S * Norm(F_c) + M of one level, (B, C, H, W).

    Args:
        level: names the weights.
        attention: of that level.
        query: result of `queries`.
        features: of the content.
        style: result of `style_values`.
    """
    content = positions(g, normalized(g, features[level]))
    shape = g.op("Shape", features[level])
    batch, channels = g.element(shape, 0), g.element(shape, 1)
    count = g.op("Mul", g.element(shape, 2), g.element(shape, 3))
    pairs = g.op("Mul", batch, g.element(g.op("Shape", style.key), 1))
    rows = g.op("Min", g.op("Max", g.op("Div", [CHUNK_PAIRS], pairs), [1]), count)
    chunks = g.op("Div", g.op("Sub", g.op("Add", count, rows), [1]), rows)
    body = _chunk(g, attention, query, content, style, rows, count)
    parts = g.op("Loop", g.op("Squeeze", chunks), np.array(True), body=body)  # (chunks, B, R, C)
    joined = g.op("Reshape", g.op("Transpose", parts, perm=[1, 0, 2, 3]), g.op("Concat", batch, [-1], channels, axis=0))
    painted = g.op("Slice", joined, [0], count, [1])
    return g.op("Reshape", g.op("Transpose", painted, perm=[0, 2, 1]), shape)


def _chunk(
    g: Graph, attention: AdaAttention, query: str, content: str, style: StyleValues, rows: str, count: str
) -> Graph:
    """The body of the loop: result of R content positions, (B, R, C); the last chunk repeats the last position."""
    keys = g.op("Transpose", style.key, perm=[0, 2, 1])
    body = g.body()
    first = body.op("Mul", LOOP_INDEX, rows)
    chosen = body.op("Min", body.op("Add", first, body.indices(rows)), body.op("Sub", count, [1]))
    logits = body.op("MatMul", body.op("Gather", query, chosen, axis=1), keys)
    sums = body.op("MatMul", _weights(body, attention, logits), style.value)
    channels = attention.value_proj.out_channels
    mean = body.op("Slice", sums, [0], [channels], [2])
    squares = body.op("Slice", sums, [channels], [2 * channels], [2])
    variance = body.op("Sub", squares, body.op("Mul", mean, mean))
    large = body.op("Greater", variance, STD_FLOOR**2)
    std = body.op("Sqrt", body.op("Where", large, variance, 0.0))
    painted = body.op("Mul", std, body.op("Gather", content, chosen, axis=1))
    painted = body.op("Add", body.op("Add", painted, mean), style.center)
    body.output("again", LOOP_CONDITION, ())
    body.output("part", painted, ("batch", "rows", "channels"))
    return body


def _weights(g: Graph, attention: AdaAttention, logits: str) -> str:
    """(B, R, Ns) logits, or cosines -> attention weights."""
    if attention.similarity == "cosine":
        weights = g.op("Relu", g.op("Add", logits, 1.0))
        return g.op("Div", weights, g.op("Add", g.op("ReduceSum", weights, [2], keepdims=1), NORM_EPSILON))
    return g.op("Softmax", logits, axis=2)

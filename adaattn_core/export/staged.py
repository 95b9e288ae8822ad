"""A model as four graphs, for a program that changes style and strength without computing the rest again.

    encoder   picture -> the features that attention needs
    style     features of a style -> keys and values of each level
    content   features of a content, keys and values -> decoder's inputs at full strength ("fused"), those of the
              content unpainted ("own"), and the queries, from which attention weights can be computed
    decoder   decoder's inputs, and the content for its size -> pixels, not clipped

Contents and styles are of batch 1. Attention stays in the graph, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..models.encoder import LEVELS
from ..models.model import StyleTransferModel
from .attention import StyleValues, hand_on, restyled, style_values
from .graph import Graph, Precision, Shape
from .network import NamedFeatures, content_queries, decode, encode, merge, stacked_key
from .onnx_file import DEFAULT_OPSET, onnx_package, serialized

PICTURE, PIXELS = "picture", "pixels"
FUSED, OWN = "fused", "own"
STAGES = ("encoder", "style", "content", "decoder")


def staged_graphs(model: StyleTransferModel, precision: Precision = "float16") -> dict[str, Graph]:
    """Stage -> graph.

    Args:
        model: with three levels, in float32.
        precision: of the stored weights; all graphs compute in float32.

    Raises:
        ValueError: a model with one level, whose decoder has another shape of inputs.
    """
    if len(model.config.levels) == 1:
        raise ValueError(f"the model has attention at {model.deepest} alone; the stages need a model with three levels")
    shapes = feature_shapes(model)
    encoder = Graph(precision, inputs={PICTURE: (1, 3, "height", "width")})
    for name, value in encode(encoder, PICTURE, model.encoder, model.config.levels).items():
        encoder.output(name, value, shapes[name])
    style, handed_on = _style_graph(model, precision, shapes)
    content = Graph(precision, inputs={**shapes, **style.outputs})
    features = {name: name for name in shapes}
    painted = {}
    for level, query in content_queries(content, features, model).items():
        attention = model.fusion.level_attention(level)
        painted[level] = restyled(content, level, attention, query, features, handed_on[level])
        content.output(f"{level}_query", query, (1, f"{level}_points", attention.query_proj.out_channels))
    for name, levels in ((FUSED, painted), (OWN, features)):
        merged = merge(content, levels, model)
        for part, joined, shape in zip(("deep", "skip"), merged, _fused_shapes(model), strict=True):
            content.output(f"{name}_{part}", str(joined), shape)
    return dict(zip(STAGES, (encoder, style, content, _decoder(model, precision)), strict=True))


def staged_files(model: StyleTransferModel, metadata: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Stage -> the bytes of its ONNX file, with weights in float16.

    Args:
        model: with three levels, in float32.
        metadata: entries of the files, such as `license`.

    Raises:
        ValueError: a model with one level, or the package onnx is not installed.
    """
    onnx = onnx_package("onnx")
    graphs = staged_graphs(model)
    return {stage: serialized(onnx, graph, DEFAULT_OPSET, metadata or {}) for stage, graph in graphs.items()}


def feature_shapes(model: StyleTransferModel) -> dict[str, Shape]:
    """Name of each of the features that attention needs -> (1, C, H, W), with names for the sizes."""
    shapes: dict[str, Shape] = {}
    for level in model.config.levels:
        grid = (f"{level}_height", f"{level}_width")
        for block, shallower in enumerate(LEVELS[: LEVELS.index(level) + 1]):
            name = level if shallower == level else f"{shallower}@{level}"
            shapes[name] = (1, model.config.channels[block], *grid)
    return shapes


def _style_graph(
    model: StyleTransferModel, precision: Precision, shapes: dict[str, Shape]
) -> tuple[Graph, dict[str, StyleValues]]:
    """The graph of a style, and the names of its outputs for each level."""
    g, handed_on = Graph(precision, inputs=dict(shapes)), {}
    features: NamedFeatures = {name: name for name in shapes}
    for level in model.config.levels:
        attention = model.fusion.level_attention(level)
        values = style_values(g, level, attention, stacked_key(g, features, level), features)
        handed_on[level] = hand_on(g, level, attention, values)
    return g, handed_on


def _fused_shapes(model: StyleTransferModel) -> tuple[Shape, Shape]:
    """Of the decoder's inputs deep and skip."""
    return (
        (1, model.config.channels[3], "relu4_1_height", "relu4_1_width"),
        (1, model.config.channels[2], "relu3_1_height", "relu3_1_width"),
    )


def _decoder(model: StyleTransferModel, precision: Precision) -> Graph:
    deep, skip = _fused_shapes(model)
    picture: Shape = (1, 3, "height", "width")
    g = Graph(precision, inputs={"deep": deep, "skip": skip, PICTURE: picture})
    g.output(PIXELS, decode(g, "deep", "skip", g.size(PICTURE), model.decoder), picture)
    return g

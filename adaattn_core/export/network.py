"""Encoder, attention and decoder of a model as nodes of a graph."""

from __future__ import annotations

from torch import nn

from ..models.decoder import Decoder
from ..models.encoder import LEVELS, VGGEncoder
from ..models.model import StyleTransferModel
from .attention import StyleValues, queries, restyled, style_values
from .graph import Graph
from .layers import conv, normalized, pool, resized_to, upsampled

NamedFeatures = dict[str, str]
"""`Features` as names of values."""


def encode(g: Graph, images: str, encoder: VGGEncoder, levels: tuple[str, ...]) -> NamedFeatures:
    """The features that attention at `levels` needs, as `VGGEncoder.encode`."""
    features: NamedFeatures = {}
    size = g.size(images)
    x = conv(g, images, encoder.conv0, "encoder.conv0")
    for block, level in enumerate(LEVELS[: LEVELS.index(levels[-1]) + 1]):
        if block:
            x = pool(g, x)
        names = [name for name in encoder.layers if name[4] == level[4]]
        for index, name in enumerate(names[: 1 if level == levels[-1] else None]):
            module = encoder.layers[name]
            assert isinstance(module, nn.Conv2d)
            x = g.op("Relu", conv(g, x, module, f"encoder.layers.{name}", tiny=level == LEVELS[-1]))
            if not index:
                features |= _on_grids(g, x, level, levels, size)
    return features


def _on_grids(g: Graph, x: str, level: str, levels: tuple[str, ...], size: str) -> NamedFeatures:
    """A level itself if it has attention, and resized to the deeper grids that have."""
    found = {level: x} if level in levels else {}
    for name in levels:
        if LEVELS.index(name) > LEVELS.index(level):
            found[f"{level}@{name}"] = resized_to(g, x, g.halved(size, LEVELS.index(name)))
    return found


def stacked_key(g: Graph, features: NamedFeatures, level: str) -> str:
    """All levels down to `level` on its grid, normalised, as `stacked_key` of the model."""
    names = [f"{shallower}@{level}" for shallower in LEVELS[: LEVELS.index(level)]]
    return g.op("Concat", *(normalized(g, features[name]) for name in [*names, level]), axis=1)


def encode_style(g: Graph, style: str, model: StyleTransferModel) -> dict[str, StyleValues]:
    """What the content needs of a style, (1, 3, H, W), at every level."""
    features = encode(g, style, model.encoder, model.config.levels)
    return {
        level: style_values(g, level, model.fusion.level_attention(level), stacked_key(g, features, level), features)
        for level in model.config.levels
    }


def content_queries(g: Graph, features: NamedFeatures, model: StyleTransferModel) -> dict[str, str]:
    """Level -> queries of a content at its positions."""
    return {
        level: queries(g, level, model.fusion.level_attention(level), stacked_key(g, features, level))
        for level in model.config.levels
    }


def paint(g: Graph, content: str, styles: dict[str, StyleValues], model: StyleTransferModel) -> str:
    """The content in a style, (B, 3, H, W) in [0, 1], as `stylize`."""
    features = encode(g, content, model.encoder, model.config.levels)
    stylized = {
        level: restyled(g, level, model.fusion.level_attention(level), query, features, styles[level])
        for level, query in content_queries(g, features, model).items()
    }
    deep, skip = merge(g, stylized, model)
    return g.op("Clip", decode(g, deep, skip, g.size(content), model.decoder), 0.0, 1.0)


def merge(g: Graph, features: NamedFeatures, model: StyleTransferModel) -> tuple[str, str | None]:
    """The decoder's inputs, deep and skip, as `MultiLevelFusion.merge`."""
    if len(model.config.levels) == 1:
        return features[model.deepest], None
    skip, middle, deepest = (features[level] for level in model.config.levels)
    enlarged = upsampled(g, deepest, g.size(middle), model.config.upsample)
    return conv(g, g.op("Add", middle, enlarged), model.fusion.merge_conv, "fusion.merge_conv"), skip


def decode(g: Graph, x: str, skip: str | None, size: str, decoder: Decoder) -> str:
    """(B, 3, height, width) of the fused features, as `Decoder.forward`; `size` is that of the content."""
    if decoder.deep is not None and skip is not None:
        x = g.op("Relu", conv(g, x, decoder.deep, "decoder.deep"))
        x = upsampled(g, x, g.halved(size, 2), decoder.upsample)
        x = g.op("Concat", x, g.cast(skip, decoder.deep.weight.dtype), axis=1)
    for index, block in enumerate(decoder.blocks):
        if index:
            x = upsampled(g, x, g.halved(size, 2 - index), decoder.upsample)
        convs = list(block.children())
        for position, module in enumerate(convs):
            assert isinstance(module, nn.Conv2d)
            x = conv(g, x, module, f"decoder.blocks.{index}.{position}")
            if index < 2 or position < len(convs) - 1:
                x = g.op("Relu", x)
    return x

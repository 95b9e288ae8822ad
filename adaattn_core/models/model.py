"""A whole model: encoder, attention fusion, decoder, and the frozen config that rebuilds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .decoder import Decoder
from .encoder import ATTENTION_LEVELS, LEVELS, VGG19_CHANNELS, VGG19_CONVS, Features, VGGEncoder
from .fusion import Fused, MultiLevelFusion
from .moments import SIMILARITIES, Similarity

Upsample = Literal["nearest", "bilinear"]

IMAGE_LEVELS = ATTENTION_LEVELS
VIDEO_LEVELS = ("relu3_1",)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shapes of a model. The defaults are the published image model."""

    channels: tuple[int, ...] = VGG19_CHANNELS
    """Encoder width of each of the five blocks; the decoder mirrors the first three."""
    encoder_convs: tuple[int, ...] = VGG19_CONVS
    """Encoder convolutions in each block."""
    decoder_convs: tuple[int, ...] = (4, 2, 2)
    """Decoder convolutions on the relu3_1, relu2_1 and relu1_1 grids."""
    levels: tuple[str, ...] = IMAGE_LEVELS
    """Levels with attention: three for the image model, relu3_1 alone for the video model."""
    projection_channels: tuple[int, ...] | None = None
    """Query and key width at each level; None keeps the stacked key's width, as published."""
    similarity: Similarity = "softmax"
    """How attention weighs style positions; "cosine" for the video model."""
    upsample: Upsample = "nearest"
    """How decoder features grow; published: nearest."""
    style_cells: tuple[int, ...] | None = None
    """Side of the squares of style positions that share a key at each level; None: each position has its own, as
    published."""

    def __post_init__(self) -> None:
        for name, count in (("channels", 5), ("encoder_convs", 5), ("decoder_convs", 3)):
            numbers = getattr(self, name)
            if len(numbers) != count or min(numbers) < 1:
                raise ValueError(f"{name} is {numbers}; {count} numbers above 0 are needed, one for each block")
        if len(self.levels) > 1 and self.channels[3] != self.channels[4]:
            raise ValueError(f"channels is {self.channels}; the last two must be equal, since these levels are added")
        if self.levels not in (IMAGE_LEVELS, VIDEO_LEVELS):
            raise ValueError(f"levels are {self.levels}; known are {IMAGE_LEVELS} and {VIDEO_LEVELS}")
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"similarity is {self.similarity!r}; known are {', '.join(SIMILARITIES)}")
        if self.upsample not in get_args(Upsample):
            raise ValueError(f"upsample is {self.upsample!r}; known are {', '.join(get_args(Upsample))}")
        if self.projection_channels is not None and len(self.projection_channels) != len(self.levels):
            raise ValueError(
                f"projection_channels {self.projection_channels} need one number for each of {self.levels}"
            )
        if self.style_cells is not None and (len(self.style_cells) != len(self.levels) or min(self.style_cells) < 1):
            raise ValueError(f"style_cells is {self.style_cells}; a number above 0 is needed for each of {self.levels}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`; an unknown name is a ValueError, so that a newer file is not misread."""
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown model settings {', '.join(unknown)}; the file is newer than this library")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


COMPACT = ModelConfig(
    channels=(32, 64, 96, 256, 256),
    encoder_convs=(2, 2, 2, 2, 1),
    decoder_convs=(4, 2, 2),
    projection_channels=(48, 96, 128),
    upsample="bilinear",
    style_cells=(2, 2, 1),
)
"""The built-in model's architecture: half of VGG-19's channels or less, two convolutions a block, narrow queries and
keys, and on relu3_1 and relu4_1 one key for four style positions."""


class StyleTransferModel(nn.Module):
    """AdaAttN: `encoder`, `fusion` and `decoder`, each usable alone.

    Args:
        config: shapes; see ModelConfig.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        skip = len(config.levels) > 1
        self.encoder = VGGEncoder(config.channels, config.encoder_convs)
        self.fusion = MultiLevelFusion(
            config.channels,
            config.levels,
            config.projection_channels,
            config.similarity,
            config.upsample,
            config.style_cells,
        )
        self.decoder = Decoder(config.channels, config.decoder_convs, skip, config.upsample)

    @property
    def deepest(self) -> str:
        """Deepest encoder level the model reads."""
        return max(self.config.levels, key=LEVELS.index)

    @property
    def deep_parts(self) -> list[nn.Module]:
        """What the picture needs for the levels below relu3_1 alone; none in a model with attention at one level."""
        if self.decoder.deep is None:
            return []
        names = list(self.encoder.layers)
        below = [self.encoder.layers[name] for name in names[names.index("conv3_1") + 1 :]]
        attention = [self.fusion.attention[level] for level in self.config.levels[1:]]
        return [*below, *attention, self.fusion.merge_conv, self.decoder.deep]

    @property
    def precision(self) -> torch.dtype:
        """What `paint_in` chose."""
        return next(self.decoder.parameters()).dtype

    def paint_in(self, dtype: torch.dtype) -> StyleTransferModel:
        """Choose the precision: what follows attention in `dtype`, all that leads to it in float32 at least.

        The softmax has no 1/sqrt(K): logits of several hundred, whose rounding in bfloat16 sends a position to another
        part of the style. Measured on pictures in examples/ (benchmarks/precision.py), built-in model: the encoder in
        bfloat16 moves pixels by up to 69/255, decoder and merge by 3.4; the merge and the decoder's deepest
        convolutions, which is what bfloat16 means, by 1.6. float16 means all but the last convolution: .4.
        """
        self.to(torch.promote_types(dtype, torch.float32))
        self.decoder.paint_in(dtype)
        if len(self.config.levels) > 1:
            self.fusion.merge_conv.to(dtype)
        return self

    def encode(self, images: Tensor) -> Features:
        """(B, 3, H, W) in [0, 1] -> the features that attention reads, without gradients; see `VGGEncoder.encode`."""
        return self.encoder.encode(images, self.config.levels)

    def decode(self, fused: Fused, size: tuple[int, int]) -> Tensor:
        """(B, 3, height, width), not clamped."""
        picture: Tensor = self.decoder(fused, size)
        return picture

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Content repainted at full strength, for training; `stylize` is what users call.

        Args:
            content, style: (B, 3, H, W) in [0, 1]; sizes may differ.

        Returns:
            (B, 3, H, W), content's size, not clamped.
        """
        features = self.encoder(content, self.deepest)
        painted = self.fusion.encode_style(self.encoder(style, self.deepest))
        return self.decode(self.fusion(features, painted), (content.shape[-2], content.shape[-1]))

    def paint_pairs(self, content: Tensor, style: Tensor, contents: Tensor, styles: Tensor) -> Tensor:
        """Content `contents[i]` repainted in style `styles[i]`, for training: each picture is encoded once.

        Args:
            content, style: (B, 3, H, W) in [0, 1], each of any batch; sizes may differ.
            contents, styles: (N,) int64, indices into the two batches.

        Returns:
            (N, 3, H, W), content's size, not clamped.
        """
        features = {level: x[contents] for level, x in self.encoder(content, self.deepest).items()}
        painted = self.fusion.encode_style(self.encoder(style, self.deepest))
        chosen = {level: one.at(styles) for level, one in painted.items()}
        return self.decode(self.fusion(features, chosen), (content.shape[-2], content.shape[-1]))

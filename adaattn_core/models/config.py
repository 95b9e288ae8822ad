"""ModelConfig, which decides the shapes of a model, and the built-in configurations."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..ops.moments import SIMILARITIES, Similarity
from .encoder import ATTENTION_LEVELS, VGG19_CHANNELS, VGG19_CONVS

Upsample = Literal["nearest", "bilinear"]

IMAGE_LEVELS = ATTENTION_LEVELS
VIDEO_LEVELS = ("relu3_1",)

MAX_LOGIT_SCALE = 80.0
"""exp(80) is the largest power of e that float32 holds with room for a sum."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the shapes of a model. The defaults are the published image model.

    Stored as JSON in the metadata of model files, so field names are part of the file format.

    Raises:
        ValueError: a value out of range; the text names the field.
    """

    channels: tuple[int, ...] = VGG19_CHANNELS
    """Encoder width of each of the five blocks; the decoder mirrors the first three."""
    encoder_convs: tuple[int, ...] = VGG19_CONVS
    """Encoder convolutions in each block."""
    decoder_convs: tuple[int, ...] = (4, 2, 2)
    """Decoder convolutions on the relu3_1, relu2_1 and relu1_1 grids."""
    levels: tuple[str, ...] = IMAGE_LEVELS
    """Levels with attention: three for the image model, only relu3_1 for the video model."""
    projection_channels: tuple[int, ...] | None = None
    """Query and key width at each level; None: the width of the stacked key, as published."""
    similarity: Similarity = "softmax"
    """How attention weights follow from queries and keys; "cosine" for the video model."""
    upsample: Upsample = "nearest"
    """Upsampling before the fusion's merge and in the decoder; "nearest" as published."""
    style_cells: tuple[int, ...] | None = None
    """Side of the cells of style positions that share a key, at each level; None: 1, as published."""
    logit_scale: float | None = None
    """None: logits are products of queries and keys, as published. A number: their cosines times it, so that logits
    are bounded; only with similarity "softmax"."""

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

        if self.logit_scale is not None and not (0 < self.logit_scale <= MAX_LOGIT_SCALE):
            raise ValueError(f"logit_scale is {self.logit_scale}; above 0 and at most {MAX_LOGIT_SCALE} is needed")
        if self.logit_scale is not None and self.similarity != "softmax":
            raise ValueError(f"logit_scale needs similarity softmax; it is {self.similarity}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`.

        Raises:
            ValueError: an unknown field, as a file of a newer version has.
        """
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
"""The built-in model: at most half of VGG-19's channels, two convolutions per block, narrow queries and keys, and on
relu3_1 and relu4_1 one key for 2 x 2 style positions."""
BASE = ModelConfig(
    decoder_convs=(3, 2, 2),
    projection_channels=(64, 96, 128),
    upsample="bilinear",
    logit_scale=32.0,
)
"""The full-size model of our own: VGG-19 as the encoder, narrow queries and keys with bounded logits, and a decoder
with one convolution fewer than the published one."""

"""ModelConfig, which decides the shapes of a model, and the built-in configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..ops.moments import SIMILARITIES, Similarity
from .encoder import ATTENTION_LEVELS, VGG19_CHANNELS, VGG19_CONVS

Upsample = Literal["nearest", "bilinear"]

IMAGE_LEVELS = ATTENTION_LEVELS
VIDEO_LEVELS = ("relu3_1",)

MAX_CHANNELS, MAX_CONVS, MAX_CELLS = 8192, 64, 64
"""Largest widths, convolutions in a block and sides of cells: far above any use. A file cannot ask for a network that
takes minutes to build."""
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
        if self.levels not in (IMAGE_LEVELS, VIDEO_LEVELS):
            raise ValueError(f"levels are {self.levels}; known are {IMAGE_LEVELS} and {VIDEO_LEVELS}")
        for name, count, maximum in (
            ("channels", 5, MAX_CHANNELS), ("encoder_convs", 5, MAX_CONVS), ("decoder_convs", 3, MAX_CONVS),
        ):  # fmt: skip
            _check_numbers(name, getattr(self, name), count, maximum, "for each block")
        for name, maximum in (("projection_channels", MAX_CHANNELS), ("style_cells", MAX_CELLS)):
            if getattr(self, name) is not None:
                _check_numbers(name, getattr(self, name), len(self.levels), maximum, f"for each of {self.levels}")
        if len(self.levels) > 1 and self.channels[3] != self.channels[4]:
            raise ValueError(f"channels is {self.channels}; the last two must be equal, since these levels are added")
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"similarity is {self.similarity!r}; known are {', '.join(SIMILARITIES)}")
        if self.upsample not in get_args(Upsample):
            raise ValueError(f"upsample is {self.upsample!r}; known are {', '.join(get_args(Upsample))}")
        if self.logit_scale is not None:
            self._check_logit_scale(self.logit_scale)

    def _check_logit_scale(self, scale: float) -> None:
        if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale <= MAX_LOGIT_SCALE:
            raise ValueError(f"logit_scale is {scale}; above 0 and at most {MAX_LOGIT_SCALE} is needed")
        if self.similarity != "softmax":
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


def _check_numbers(name: str, numbers: Sequence[int], count: int, maximum: int, each: str) -> None:
    """Raise ValueError unless a setting consists of `count` whole numbers from 1 to `maximum`."""
    if (
        not isinstance(numbers, Sequence)
        or len(numbers) != count
        or not all(type(number) is int and 1 <= number <= maximum for number in numbers)
    ):
        raise ValueError(f"{name} is {numbers!r}; {count} whole numbers from 1 to {maximum} are needed, one {each}")


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

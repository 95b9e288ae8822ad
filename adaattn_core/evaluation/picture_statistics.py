"""The channel statistics that every record keeps, so that pictures of one evaluation can be compared with each other.

They are the mean and standard deviation of every channel of the built-in normalised VGG-19 at relu1_1 to relu4_1, for
the picture at a short side of at most SHORT_SIDE pixels: 1920 numbers. relu5_1 is left out, since it
describes what a picture shows: with it, fewer pictures find their own style (48 pairs of one method: .92 instead of
1.00). Letters: N pictures, S styles, D numbers of one level.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..models.encoder import LEVELS
from ..ops.resize import resize_image
from .metrics import Statistics

SHORT_SIDE = 256
STATISTICS_LEVELS = LEVELS[:4]


class PictureSet(NamedTuple):
    """The statistics of one method's pictures, for the metrics that compare pictures with each other.

    pictures, styles: level -> (N, D) and (S, D). content, style: index of each picture's content, and of its style in
    `styles`, (N,).
    """

    pictures: Statistics
    styles: Statistics
    content: Tensor
    style: Tensor


def reduce_picture(picture: Tensor) -> Tensor:
    """A picture (1, 3, H, W), reduced to a short side of SHORT_SIDE pixels where it is longer."""
    return resize_image(picture, short_side=SHORT_SIDE) if min(picture.shape[-2:]) > SHORT_SIDE else picture


def encode_statistics(statistics: Statistics) -> str:
    """The statistics (1, D) of every level as base64 text of float16 numbers: 5 KB.

    Float16 is precise enough: a mean activation of the normalised network is about 1.
    """
    numbers = torch.cat([statistics[level][0] for level in STATISTICS_LEVELS]).cpu().numpy().astype("<f2")
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def decode_statistics(texts: Sequence[str], channels: Sequence[int]) -> dict[str, Tensor]:
    """Level -> (N, D) float32, D being twice the channels of the level.

    Args:
        texts: N texts from `encode_statistics`.
        channels: of each level of the network, from relu1_1 on.
    """
    rows = np.stack([np.frombuffer(base64.b64decode(text), "<f2") for text in texts]).astype(np.float32)
    parts = torch.split(torch.from_numpy(rows), [2 * count for count in channels[: len(STATISTICS_LEVELS)]], dim=1)
    return dict(zip(STATISTICS_LEVELS, parts, strict=True))

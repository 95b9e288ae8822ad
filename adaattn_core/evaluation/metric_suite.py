"""The panel of judges: every metric of a picture from one look at it, and what is known of the metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.model_file import fingerprint
from ..models.encoder import LEVELS, Features, VGGEncoder
from ..ops.color import color_quantile_distance, color_quantiles
from .metrics import (
    channel_statistics,
    content_distance,
    gram_matrices,
    lpips_distance,
    ssim,
    statistics_distance,
    structure_distance,
)
from .networks import VGG16, VGG16_STYLE_LEVELS

CONTENT_LEVELS = ("relu4_1", "relu5_1")
VERSION = 2
"""Of the numbers: raised when a metric changes, so that older records are not taken for today's."""


@dataclass(frozen=True)
class Metric:
    """What a column of the table says."""

    title: str
    side: Literal["style", "content", "both"]
    about: str
    higher_is_better: bool = False
    digits: int = 3


METRICS: dict[str, Metric] = {
    "style_vgg16": Metric("Style (VGG-16)", "style", "mean and deviation of every channel, relu1_2 to relu4_3, "
                          "relative L2; no training here has seen this judge"),
    "style_vgg19": Metric("Style (VGG-19)", "style", "the same on relu1_1 to relu5_1: close to the training loss"),
    "gram": Metric("Gram (VGG-16)", "style", "Gram matrices, relu1_2 to relu4_3, relative L2"),
    "color": Metric("Colour", "style", "sliced Wasserstein distance of the palettes in CIELAB units", digits=1),
    "lpips_alex": Metric("LPIPS (Alex)", "content", "learned perceptual distance, v0.1, on AlexNet"),
    "lpips_vgg": Metric("LPIPS (VGG-16)", "content", "learned perceptual distance, v0.1, on VGG-16"),
    "ssim": Metric("SSIM", "content", "structural similarity of the brightness", higher_is_better=True),
    "content": Metric("Content (VGG-19)", "content", "channel-normalised features, relu4_1 and relu5_1, relative L2"),
    "cfsd": Metric("CFSD (VGG-16)", "content", "content feature structural distance: self-similarity, relu3_1"),
    "artfid": Metric("ArtFID", "both", "(1 + LPIPS) (1 + FID to the styles), of all pictures together", digits=2),
}  # fmt: skip
"""Name -> metric, in the order of the table. Each but ArtFID has a number per picture."""


class PictureFeatures(NamedTuple):
    """A picture and what the judges see in it."""

    picture: Tensor
    vgg19: Features
    vgg16: Features


class StyleStatistics(NamedTuple):
    """What of a style its metrics compare: small, so that many can be kept."""

    vgg19: Mapping[str, Tensor]
    vgg16: Mapping[str, Tensor]
    gram: Mapping[str, Tensor]
    color: Tensor


@dataclass
class MetricSuite:
    """Judges of one evaluation.

    Args:
        vgg19: from `load_vgg`.
        vgg16: from `load_vgg16`; None leaves its metrics out.
        lpips_heads: from `load_lpips_heads`; they need vgg16.
        lpips_alex: (picture, reference) -> (1,), both in [0, 1]; see `load_lpips_alex`.
        missing: metric -> why it is not measured, for those left out.
    """

    vgg19: VGGEncoder
    vgg16: VGG16 | None = None
    lpips_heads: Mapping[str, Tensor] | None = None
    lpips_alex: Callable[[Tensor, Tensor], Tensor] | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Names of those that are measured picture by picture."""
        return [name for name in METRICS if name not in self.missing and name != "artfid"]

    def identity(self) -> str:
        """Changes with whatever changes the numbers."""
        judges = [fingerprint(judge) if judge is not None else "" for judge in (self.vgg19, self.vgg16)]
        heads = [head.cpu().numpy().tobytes() for head in (self.lpips_heads or {}).values()]
        digest = hashlib.sha256(f"{VERSION} {judges} {sorted(self.metrics)}".encode() + b"".join(heads))
        return digest.hexdigest()[:12]

    @torch.inference_mode()
    def extract(self, picture: Tensor) -> PictureFeatures:
        """(1, 3, H, W) in [0, 1] -> what the judges see, on their device."""
        first = next(self.vgg19.parameters())
        picture = picture.to(first.device, torch.float32).contiguous(memory_format=torch.channels_last)
        return PictureFeatures(picture, self.vgg19(picture), self.vgg16(picture) if self.vgg16 is not None else {})

    @torch.inference_mode()
    def style_statistics(self, look: PictureFeatures) -> StyleStatistics:
        return StyleStatistics(
            channel_statistics(look.vgg19, LEVELS),
            channel_statistics(look.vgg16, VGG16_STYLE_LEVELS) if look.vgg16 else {},
            gram_matrices(look.vgg16, VGG16_STYLE_LEVELS) if look.vgg16 else {},
            color_quantiles(look.picture),
        )

    @torch.inference_mode()
    def score(self, stylized: PictureFeatures, content: PictureFeatures, style: StyleStatistics) -> dict[str, float]:
        """Every metric of `metrics` for one picture of the content's size."""
        marks = self.style_statistics(stylized)
        found = {
            "style_vgg19": statistics_distance(marks.vgg19, style.vgg19),
            "color": color_quantile_distance(marks.color, style.color),
            "content": content_distance(stylized.vgg19, content.vgg19, CONTENT_LEVELS),
            "ssim": ssim(stylized.picture, content.picture),
        }
        if stylized.vgg16:
            found["style_vgg16"] = statistics_distance(marks.vgg16, style.vgg16)
            found["gram"] = statistics_distance(marks.gram, style.gram)
            found["cfsd"] = structure_distance(stylized.vgg16["relu3_1"], content.vgg16["relu3_1"])
            if self.lpips_heads:
                found["lpips_vgg"] = lpips_distance(stylized.vgg16, content.vgg16, self.lpips_heads)
        if self.lpips_alex:
            found["lpips_alex"] = self.lpips_alex(stylized.picture, content.picture)
        return {name: float(found[name]) for name in self.metrics}

"""The metrics of an evaluation as one table, and the suite that measures all of them on a stylised picture.

To add a metric: write its function in `metrics` (features or statistics in, (B,) out) and add one row to METRICS. The
row's `measure` picks what the function needs from a `Comparison`; `networks` names the networks without which the
metric is left out. Everything else (report, records, terminal table, chart, intervals) follows from the row.

- A metric that compares a new statistic of the style adds a field to `StyleStatistics` and a line to
  `MetricSuite.style_statistics`. Statistics of 200 styles stay in memory, so keep a statistic below a few MB.
- A metric on a new network adds a field to `networks.FeatureNetworks` and a loader; `commands/evaluate.py` loads it.
- A metric that compares the pictures of a method with each other has `relate` instead of `measure`. It is computed in
  `summary`, from the statistics that every record keeps.
- A metric of all pictures of a method together, as ArtFID is, has neither: its values are passed to
  `summary.summarize`.
- Raise VERSION when an existing metric changes, so that numbers of older runs are measured again. A new row needs
  no new version: the names of the metrics are part of `MetricSuite.identity`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.model_file import fingerprint
from ..models.encoder import LEVELS, Features
from ..ops.color import color_quantile_distance, color_quantiles
from .metrics import (
    channel_statistics,
    content_distance,
    gram_matrices,
    lpips_distance,
    patch_distance,
    ssim,
    statistics_distance,
    structure_distance,
    style_retrieval,
    style_spread,
)
from .networks import VGG16_STYLE_LEVELS, FeatureNetworks, NetworkName
from .picture_statistics import STATISTICS_LEVELS, PictureSet, reduce_picture

CONTENT_LEVELS = ("relu4_1", "relu5_1")
PATCH_LEVEL = "relu4_1"
VERSION = 4
"""Version of the numbers, part of `MetricSuite.identity`."""


class PictureFeatures(NamedTuple):
    """A picture (1, 3, H, W) in [0, 1] and its features, which are empty without their network.

    normalized_vgg19: of the reduced picture, see `picture_statistics.reduce_picture`.
    """

    picture: Tensor
    vgg19: Features
    vgg16: Features
    normalized_vgg19: Features


class StyleStatistics(NamedTuple):
    """The statistics of a picture that style metrics compare, about 3 MB.

    channels: channel statistics of the normalised VGG-19. patches: its PATCH_LEVEL, float16. Both of the reduced
    picture, and empty without that network.
    """

    vgg19: Mapping[str, Tensor]
    vgg16: Mapping[str, Tensor]
    gram: Mapping[str, Tensor]
    color: Tensor
    channels: Mapping[str, Tensor]
    patches: Tensor


class Comparison(NamedTuple):
    """Everything a metric can measure of one stylised picture, its content and its style."""

    stylized: PictureFeatures
    content: PictureFeatures
    stylized_statistics: StyleStatistics
    style_statistics: StyleStatistics
    networks: FeatureNetworks


class Score(NamedTuple):
    """The values of one picture by metric, and the statistics by which it is compared with other pictures."""

    values: dict[str, float]
    statistics: StyleStatistics


@dataclass(frozen=True)
class Metric:
    """One column of the table.

    Args:
        title: column title; a network in parentheses is shown on a second line.
        side: whether it measures the style taken, the content kept, or both.
        about: definition in one line.
        measure: value (1,) of one picture by itself.
        networks: those without which the metric is left out.
        digits: decimal places shown.
        relate: values (N,) of all pictures of a method, from their statistics; NaN where the metric is undefined.
        undefined: why it may be undefined.
    """

    title: str
    side: Literal["style", "content", "both"]
    about: str
    measure: Callable[[Comparison], Tensor] | None
    networks: tuple[NetworkName, ...] = ()
    higher_is_better: bool = False
    digits: int = 3
    relate: Callable[[PictureSet], Tensor] | None = None
    undefined: str = ""


def _lpips_vgg(c: Comparison) -> Tensor:
    assert c.networks.lpips_heads is not None, "without heads the suite leaves this metric out"
    return lpips_distance(c.stylized.vgg16, c.content.vgg16, c.networks.lpips_heads)


def _lpips_alex(c: Comparison) -> Tensor:
    assert c.networks.lpips_alex is not None, "without AlexNet the suite leaves this metric out"
    return c.networks.lpips_alex(c.stylized.picture, c.content.picture)


METRICS: dict[str, Metric] = {
    "patch_distance": Metric(
        "Patch distance (VGG-19)", "style",
        "1 - cosine to the nearest patch of the style, and of the picture for each patch of the style; relu4_1, each "
        "channel normalised by the style's statistics",
        lambda c: patch_distance(c.stylized_statistics.patches, c.style_statistics.patches), ("vgg19_normalized",),
    ),
    "style_spread": Metric(
        "Style spread (VGG-19)", "style",
        "how far pictures of one content in two styles differ, relative to the two styles: channel statistics, relu1_1 "
        "to relu4_1; 1 is as different as the styles", None, ("vgg19_normalized",), higher_is_better=True, digits=2,
        relate=lambda p: style_spread(p.pictures, p.styles, p.content, p.style),
        undefined="it needs a content in two styles",
    ),
    "style_retrieval": Metric(
        "Style retrieval (VGG-19)", "style",
        "share of pictures whose nearest style, among all styles here, is their own: channel statistics, relu1_1 to "
        "relu4_1; chance is 1 / number of styles", None, ("vgg19_normalized",), higher_is_better=True, digits=2,
        relate=lambda p: style_retrieval(p.pictures, p.styles, p.style), undefined="it needs two styles",
    ),
    "style_vgg16": Metric(
        "Style (VGG-16)", "style",
        "mean and standard deviation of every channel, relu1_2 to relu4_3, relative L2; no model here is trained with "
        "this network",
        lambda c: statistics_distance(c.stylized_statistics.vgg16, c.style_statistics.vgg16), ("vgg16",),
    ),
    "style_vgg19": Metric(
        "Style (VGG-19)", "style", "the same at relu1_1 to relu5_1: close to the training loss",
        lambda c: statistics_distance(c.stylized_statistics.vgg19, c.style_statistics.vgg19), ("vgg19",),
    ),
    "gram": Metric(
        "Gram (VGG-16)", "style", "Gram matrices, relu1_2 to relu4_3, relative L2",
        lambda c: statistics_distance(c.stylized_statistics.gram, c.style_statistics.gram), ("vgg16",),
    ),
    "color": Metric(
        "Colour", "style", "sliced Wasserstein distance of the palettes in CIELAB units",
        lambda c: color_quantile_distance(c.stylized_statistics.color, c.style_statistics.color), digits=1,
    ),
    "lpips_alex": Metric(
        "LPIPS (Alex)", "content", "learned perceptual distance, v0.1, on AlexNet", _lpips_alex, ("lpips_alex",),
    ),
    "lpips_vgg": Metric(
        "LPIPS (VGG-16)", "content", "learned perceptual distance, v0.1, on VGG-16",
        _lpips_vgg, ("vgg16", "lpips_heads"),
    ),
    "ssim": Metric(
        "SSIM", "content", "structural similarity of the luminance",
        lambda c: ssim(c.stylized.picture, c.content.picture), higher_is_better=True,
    ),
    "content": Metric(
        "Content (VGG-19)", "content", "channel-normalised features, relu4_1 and relu5_1, relative L2",
        lambda c: content_distance(c.stylized.vgg19, c.content.vgg19, CONTENT_LEVELS), ("vgg19",),
    ),
    "cfsd": Metric(
        "CFSD (VGG-16)", "content", "content feature structural distance: self-similarity, relu3_1",
        lambda c: structure_distance(c.stylized.vgg16["relu3_1"], c.content.vgg16["relu3_1"]), ("vgg16",),
    ),
    "artfid": Metric(
        "ArtFID", "both", "(1 + LPIPS) (1 + FID to the styles), of all pictures together", None, digits=2,
    ),
}  # fmt: skip
"""Name in report.json and results.jsonl -> metric, in the order of the table."""


@dataclass
class MetricSuite:
    """The networks of one evaluation, and the metrics that they allow.

    Args:
        networks: those that were loaded.
        reasons: name of a metric or of a network -> why it is not available. A metric named here is left out.

    Attributes:
        missing: metric -> why it is not measured.
    """

    networks: FeatureNetworks
    reasons: Mapping[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.missing = {}
        for name, metric in METRICS.items():
            absent = [network for network in metric.networks if getattr(self.networks, network) is None]
            if name in self.reasons:
                self.missing[name] = self.reasons[name]
            elif absent:
                self.missing[name] = self.reasons.get(absent[0], f"{absent[0]} was not loaded")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are measured picture by picture."""
        return [name for name, metric in METRICS.items() if metric.measure and name not in self.missing]

    @property
    def relations(self) -> list[str]:
        """Names of the metrics that compare the pictures of a method with each other."""
        return [name for name, metric in METRICS.items() if metric.relate and name not in self.missing]

    def identity(self) -> str:
        """Digest that changes whenever the numbers would."""
        networks = (self.networks.vgg19, self.networks.vgg16, self.networks.vgg19_normalized)
        prints = [fingerprint(network) if network is not None else "" for network in networks]
        heads = [head.cpu().numpy().tobytes() for head in (self.networks.lpips_heads or {}).values()]
        digest = hashlib.sha256(f"{VERSION} {prints} {sorted(self.metrics)}".encode() + b"".join(heads))
        return digest.hexdigest()[:12]

    @torch.inference_mode()
    def extract(self, picture: Tensor) -> PictureFeatures:
        """Features of a picture (1, 3, H, W) in [0, 1], on the device of the networks."""
        vgg19, vgg16, normalized = self.networks.vgg19, self.networks.vgg16, self.networks.vgg19_normalized
        device = next(vgg19.parameters()).device
        picture = picture.to(device, torch.float32).contiguous(memory_format=torch.channels_last)
        return PictureFeatures(
            picture,
            vgg19(picture),
            vgg16(picture) if vgg16 is not None else {},
            normalized(reduce_picture(picture)) if normalized is not None else {},
        )

    @torch.inference_mode()
    def style_statistics(self, features: PictureFeatures) -> StyleStatistics:
        return StyleStatistics(
            channel_statistics(features.vgg19, LEVELS),
            channel_statistics(features.vgg16, VGG16_STYLE_LEVELS) if features.vgg16 else {},
            gram_matrices(features.vgg16, VGG16_STYLE_LEVELS) if features.vgg16 else {},
            color_quantiles(features.picture),
            channel_statistics(features.normalized_vgg19, STATISTICS_LEVELS) if features.normalized_vgg19 else {},
            features.normalized_vgg19[PATCH_LEVEL].half()
            if features.normalized_vgg19
            else torch.empty(0, dtype=torch.float16),
        )

    @torch.inference_mode()
    def score(self, stylized: PictureFeatures, content: PictureFeatures, style: StyleStatistics) -> Score:
        """Every metric of `metrics` for one picture of the content's size."""
        statistics = self.style_statistics(stylized)
        comparison = Comparison(stylized, content, statistics, style, self.networks)
        measures = {name: METRICS[name].measure for name in self.metrics}
        values = {name: float(measure(comparison)) for name, measure in measures.items() if measure}
        return Score(values, statistics)

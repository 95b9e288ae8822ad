"""Narrow feature networks and folders of small pictures, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from adaattn_core.evaluation.metric_suite import MetricSuite
from adaattn_core.evaluation.networks import LPIPS_LEVELS, VGG16, FeatureNetworks, prepare_network
from adaattn_core.io.images import save_image
from adaattn_core.models.encoder import VGGEncoder
from tests.helpers.small_models import picture

__all__ = ["CPU", "narrow_suite", "narrow_vgg16", "narrow_vgg19", "paths", "write_pictures"]

CPU = torch.device("cpu")
NARROW = (4, 6, 8, 10, 10)


def narrow_vgg19() -> VGGEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return prepare_network(VGGEncoder(NARROW, (2, 2, 2, 2, 1)), CPU)


def narrow_vgg16() -> VGG16:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return prepare_network(VGG16(NARROW), CPU)


def narrow_suite() -> MetricSuite:
    """Every network except those of packages that download."""
    heads = {level: torch.ones(width) for level, width in zip(LPIPS_LEVELS, NARROW, strict=True)}
    reasons = {"lpips_alex": "not in a test", "artfid": "not in a test"}
    return MetricSuite(FeatureNetworks(narrow_vgg19(), narrow_vgg16(), heads, vgg19_normalized=narrow_vgg19()), reasons)


def write_pictures(folder: Path, names: Sequence[str], seed: int = 0, size: tuple[int, int] = (32, 40)) -> Path:
    """PNG files with these names, of noise, in a new folder."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        save_image(picture(*size, seed=seed + index), folder / f"{name}.png")
    return folder


def paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files that `write_pictures` writes."""
    return [folder / f"{name}.png" for name in names]

"""Small judges and folders of small pictures, for the tests of evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from adaattn_core.evaluation.metric_suite import MetricSuite
from adaattn_core.evaluation.networks import LPIPS_LEVELS, VGG16, ready_judge
from adaattn_core.io.images import save_image
from adaattn_core.models.encoder import VGGEncoder
from tests.helpers.small_models import picture

__all__ = ["CPU", "narrow_panel", "narrow_vgg16", "narrow_vgg19", "write_pictures"]

CPU = torch.device("cpu")
NARROW = (4, 6, 8, 10, 10)


def narrow_vgg19() -> VGGEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ready_judge(VGGEncoder(NARROW, (2, 2, 2, 2, 1)), CPU)


def narrow_vgg16() -> VGG16:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ready_judge(VGG16(NARROW), CPU)


def narrow_panel() -> MetricSuite:
    """All judges, but for the packages that download."""
    heads = {level: torch.ones(width) for level, width in zip(LPIPS_LEVELS, NARROW, strict=True)}
    missing = {"lpips_alex": "not in a test", "artfid": "not in a test"}
    return MetricSuite(narrow_vgg19(), narrow_vgg16(), heads, None, missing)


def write_pictures(folder: Path, names: Sequence[str], seed: int = 0, size: tuple[int, int] = (32, 40)) -> Path:
    """PNG files with these names, made of noise, in a folder that is made for them."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        save_image(picture(*size, seed=seed + index), folder / f"{name}.png")
    return folder

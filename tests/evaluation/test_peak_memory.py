"""Peak memory of a model is that of a separate process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adaattn_core.checkpoints.model_file import save_model
from adaattn_core.evaluation.methods import ModelMethod, Pair
from adaattn_core.evaluation.peak_memory import measure_peak, peak_memory_gib
from tests.helpers.evaluation import write_pictures
from tests.helpers.small_models import small_model


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    write_pictures(tmp_path, ["sea", "ink"])
    return Pair(tmp_path / "sea.png", tmp_path / "ink.png")


@pytest.mark.slow
def test_peak_memory_of_a_model_of_its_own(pair: Pair, tmp_path: Path) -> None:
    """A process that has torch and a small model takes some 0.3 to 1 GiB, whatever this one has eaten."""
    save_model(small_model(), tmp_path / "m.safetensors", dtype=torch.float32)
    ballast = torch.ones(400 * 2**20, dtype=torch.uint8)  # the child must not count it
    painter = ModelMethod("small", small_model(), str(tmp_path / "m.safetensors"), "digest", temperature=2.0)
    peak = peak_memory_gib(painter, pair, 512)
    assert peak is not None and peak > 0.1
    job = {
        "source": painter.source, "device": "cpu", "dtype": "float32", "size": 512, "options": {},
        "content": str(pair.content), "style": str(pair.style),
    }  # fmt: skip
    assert peak < measure_peak(job) - 0.2
    assert ballast.sum() == ballast.numel()


def test_peak_memory_that_cannot_be_measured(pair: Pair, tmp_path: Path) -> None:
    assert (
        peak_memory_gib(ModelMethod("gone", small_model(), str(tmp_path / "none.safetensors"), ""), pair, 512) is None
    )

"""adaattn bench train: rates, the bottleneck, and the errors."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import adaattn_core.commands.bench
import adaattn_core.training.trainer
from adaattn_core.benchmarking.training import (
    Rates,
    describe_bottleneck,
    measure_rates,
    pictures_per_step,
    warmed_up_trainer,
    write_random_vgg,
)
from adaattn_core.checkpoints.vgg import load_vgg
from adaattn_core.cli import main
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import TrainingPairs
from adaattn_core.training.trainer import Trainer
from tests.helpers.tiny_training import tiny_settings, use_small_vgg, write_pictures
from tests.helpers.training_runs import Configure

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Makes the config of a tiny run of the style stage alone; arguments override."""
    use_small_vgg(monkeypatch)
    write_pictures(tmp_path)
    style_only = {"distill_steps": 0, "reconstruct_steps": 0, "self_pairs": 0.0, "warmup_steps": 0, "batch": 1}
    return partial(replace, TrainConfig(**tiny_settings(tmp_path, tmp_path / "run") | style_only))


def test_waiting_for_pictures_is_measured(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run, original = warmed_up_trainer(configure(batch=2)), TrainingPairs.__getitem__

    def slow(pairs: TrainingPairs, index: int) -> Any:
        time.sleep(0.02)
        return original(pairs, index)

    monkeypatch.setattr(TrainingPairs, "__getitem__", slow)
    monkeypatch.setattr(Trainer, "train_step", lambda run, batch: time.sleep(0.01))
    rates = measure_rates(run, workers=0, steps=3)
    assert rates.read < 50 and rates.steps < 20  # pairs in at least 20 ms each, steps in 50
    assert rates.pictures == pytest.approx(2 * rates.steps)
    assert 0.5 < rates.waiting < 0.95
    assert rates.compute_seconds == pytest.approx(0.01, rel=2)


def test_the_bottleneck_by_hand() -> None:
    """A step computes for 0.25 s and needs 8 pairs: 32 per second, of which one worker loads 10."""
    waiting = [Rates(0, 10, 0.95, 7.6, 0.76), Rates(1, 10, 1.25, 10, 0.6875)]
    assert describe_bottleneck(waiting, 8, "cuda") == (
        "Bottleneck: loading pictures. With --workers 1 a step waits for 69% of its time. 4 workers on separate cores "
        "would be fast enough; so would smaller files."
    )
    assert describe_bottleneck([*waiting, Rates(4, 64, 4, 32, 0)], 8, "cuda") == (
        "Bottleneck: the computation (cuda): 0.25 s per step, while pictures are loaded 2.0 times as fast as they are "
        "used. --workers 4 is enough."
    )


def test_pictures_of_a_step_by_hand(configure: Configure) -> None:
    assert pictures_per_step(configure(batch=8, self_pairs=0.25)) == 8
    assert pictures_per_step(configure(batch=8, self_pairs=0.25, styles_per_content=2)) == 2 + 12
    assert pictures_per_step(configure(batch=8, self_pairs=0.25, styles_per_content=9, kind="video")) == 2 + 2 * 36


def test_training_on_synthetic_pictures_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    use_small_vgg(monkeypatch)
    monkeypatch.setattr(adaattn_core.commands.bench, "write_random_vgg", lambda path: None)
    monkeypatch.chdir(tmp_path)
    small = ["--crop=32", "--batch=2", "--width=.125", "--local-samples=50", "--device=cpu", "--precision=float32"]
    assert main(["bench", "train", "--worker-counts", "0,1", "--measured-steps", "1", *small]) == 0
    title, heads, *lines, last = capsys.readouterr().out.splitlines()
    assert title == "compact image model, batch 2, crop 32, adam; cpu, float32"
    assert heads.split() == ["workers", "reading", "alone", "training", "waiting"]
    assert [line.split()[0] for line in lines] == ["0", "1"] and all("steps/s" in line for line in lines)
    assert last.startswith("Bottleneck: ")
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_the_random_vgg_is_read_as_a_real_one(tmp_path: Path) -> None:
    write_random_vgg(tmp_path / "v.safetensors")
    vgg = load_vgg(tmp_path / "v.safetensors")
    with torch.no_grad():
        features = vgg(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "relu3_1")
    assert bool(features["relu3_1"].isfinite().all()) and float(features["relu3_1"].std()) > 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--worker-counts", "1,-1"], "1,-1 is out of range; numbers of workers must be 0 or more"),
        (["--measured-steps", "0"], "0 is out of range; it must be at least 1"),
        (["--crop", "8"], "crop is 8; it must be at least 32"),
        (["--content", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_arguments(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaattn_core.commands.bench, "write_random_vgg", lambda path: None)
    assert main(["bench", "train", *words]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1

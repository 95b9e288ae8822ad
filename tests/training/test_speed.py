"""What makes a training fast, and what says how fast it is: half precision, compilation, and adaattn bench train."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

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
from adaattn_core.train import TrainingError
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import TrainingPairs
from adaattn_core.training.loop import train
from adaattn_core.training.run_checkpoint import CHECKPOINT, read_checkpoint
from adaattn_core.training.trainer import Trainer
from tests.helpers.tiny_training import tiny_settings, use_small_vgg, write_pictures
from tests.helpers.training_runs import Configure, first_batch, stop_before

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


# ---------------------------------------------------------------- float16


def test_float16_leaves_out_steps_that_overflow(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure(precision="float16", steps=40, lr=3e-4))
    run.initialize()
    batch, before = first_batch(run), {name: value.clone() for name, value in run.model.state_dict().items()}
    run.loss_scale = 2.0**40
    losses = [run.train_step(batch)]
    assert run.loss_scale == 2.0**39 and losses[0]["gradient_norm"] == 0
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    run.loss_scale = 16.0
    losses += [run.train_step(batch) for _ in range(14)]
    assert losses[-1]["total"] < 0.6 * losses[0]["total"]
    monkeypatch.setattr(adaattn_core.training.trainer, "LOSS_SCALE_STEPS", run.step + 1)
    before_last = run.loss_scale
    run.train_step(batch)
    assert run.loss_scale == 2 * before_last


def test_the_loss_scale_changes_no_gradient(configure: Configure) -> None:
    norms = []
    for scale in (1.0, 16.0):
        run = Trainer(configure())
        run.loss_scale = scale  # of a float32 run, which has none: a power of two, so that nothing is rounded
        norms.append(run.train_step(first_batch(run))["gradient_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)


def test_a_stopped_float16_run_ends_as_an_uninterrupted_one(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = configure(precision="float16", steps=4, output=str(tmp_path / "whole"))
    train(whole)
    stopped = replace(whole, output=str(tmp_path / "stopped"))

    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    train(stopped, resume=True)
    one, other = (read_checkpoint(Path(config.output) / CHECKPOINT) for config in (whole, stopped))
    assert one["loss_scale"] == other["loss_scale"] < 2.0**16, "the first gradients are too large for that scale"
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


# ---------------------------------------------------------------- torch.compile


def test_what_takes_the_time_is_compiled(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    run = Trainer(configure())
    run.compile()
    assert compiled == [run.model.encoder, run.model.decoder, run.vgg]
    train(configure(compile=True, steps=1))
    assert len(compiled) == 6
    train(replace(configure(steps=1), compile=False), resume=True)  # computes the same: may change


def test_a_missing_compiler_is_said_in_one_line(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    class BackendError(RuntimeError):
        """As torch's, which wraps the compiler's own words."""

    BackendError.__module__ = "torch._dynamo.exc"

    def failing(*arguments: Any) -> None:
        try:
            raise RuntimeError("\nNo working C++ compiler found\nsee the manual")
        except RuntimeError as cause:
            raise BackendError("backend='inductor' raised:\nmany lines") from cause

    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    monkeypatch.setattr(Trainer, "train_step", failing)
    with pytest.raises(TrainingError) as caught:
        train(configure(compile=True))
    assert str(caught.value) == (
        "step 0: torch.compile failed (No working C++ compiler found). Train without --compile, or give it what it "
        "needs: a C++ compiler on a CPU, triton on a GPU."
    )


# ---------------------------------------------------------------- adaattn bench train


def test_waiting_for_pictures_is_measured(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run, original = warmed_up_trainer(configure(batch=2)), TrainingPairs.__getitem__

    def slow(pairs: TrainingPairs, index: int) -> Any:
        time.sleep(0.02)
        return original(pairs, index)

    monkeypatch.setattr(TrainingPairs, "__getitem__", slow)
    monkeypatch.setattr(Trainer, "train_step", lambda run, batch: time.sleep(0.01))
    found = measure_rates(run, workers=0, steps=3)
    assert found.read < 50 and found.steps < 20  # pairs in at least 20 ms each, steps in 50
    assert found.pictures == pytest.approx(2 * found.steps)
    assert 0.5 < found.waiting < 0.95
    assert found.compute_seconds == pytest.approx(0.01, rel=2)


def test_the_verdict_by_hand() -> None:
    """A step computes for 0.25 s and wants 8 pairs: 32 a second, of which one worker gives 10."""
    starving = [Rates(0, 10, 0.95, 7.6, 0.76), Rates(1, 10, 1.25, 10, 0.6875)]
    assert describe_bottleneck(starving, 8, "cuda") == (
        "Bottleneck: loading pictures. With --workers 1 a step waits for 69% of its time. 4 workers on separate cores "
        "would be fast enough; so would smaller files."
    )
    assert describe_bottleneck([*starving, Rates(4, 64, 4, 32, 0)], 8, "cuda") == (
        "Bottleneck: the computation (cuda): 0.25 s per step, while pictures are loaded 2.0 times as fast as they are "
        "used. --workers 4 is enough."
    )


def test_pictures_of_a_step_by_hand(configure: Configure) -> None:
    assert pictures_per_step(configure(batch=8, self_pairs=0.25)) == 8
    assert pictures_per_step(configure(batch=8, self_pairs=0.25, styles_per_content=2)) == 2 + 12
    assert pictures_per_step(configure(batch=8, self_pairs=0.25, styles_per_content=9, kind="video")) == 2 + 2 * 36


def test_a_made_up_training_is_measured(
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


def test_the_random_vgg_is_read_as_a_true_one(tmp_path: Path) -> None:
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

"""What makes training fast: half precision and compilation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import adaattn_core.commands.bench
import adaattn_core.training.trainer
from adaattn_core.train import TrainingError
from adaattn_core.training.config import TrainConfig
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

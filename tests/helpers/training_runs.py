"""What several tests of training need: batches, stopped runs, and runs that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core.checkpoints.model_file import load_model
from adaattn_core.train import Trainer
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import Batch, collate
from adaattn_core.training.run_checkpoint import CHECKPOINT, MODEL, read_checkpoint

Configure = Callable[..., TrainConfig]
STYLE_ONLY: dict[str, Any] = {"distill_steps": 0, "reconstruct_steps": 0, "self_pairs": 0.0, "warmup_steps": 0}


def first_batch(run: Trainer) -> Batch:
    return collate([run.pairs[index] for index in range(run.config.batch)])


def tensors(state: object, name: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested dicts and lists, by path."""
    if isinstance(state, dict | list):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from tensors(value, f"{name}.{key}")
    else:
        yield name, state


def assert_same_files(one: Path, other: Path) -> None:
    """The same run, bit for bit: weights, averaged weights, adapters, optimizer, model file and log."""
    a, b = (dict(tensors(read_checkpoint(folder / CHECKPOINT))) for folder in (one, other))
    assert a.keys() == b.keys()
    for name, value in a.items():
        if name == ".config":
            continue  # it names the output folder
        same = torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name]
        assert same, f"{name} differs"
    models = [load_model(folder / MODEL).state_dict() for folder in (one, other)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert (one / "losses.csv").read_text() == (other / "losses.csv").read_text()


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when that step would start, once."""
    original = Trainer.train_step

    def train_step(run: Trainer, batch: Batch) -> dict[str, float]:
        if run.step == step:
            monkeypatch.setattr(Trainer, "train_step", original)
            raise KeyboardInterrupt
        return original(run, batch)

    monkeypatch.setattr(Trainer, "train_step", train_step)


def fall(run: Trainer, loss: str) -> float:
    """Last loss over first, of one batch again and again for the whole run."""
    batch = first_batch(run)
    losses = [run.train_step(batch)[loss] for _ in range(run.total)]
    return losses[-1] / losses[0]

"""The losses of a step: their weighted sum, the pictures they are computed on, and batches in parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adaattn_core.training.initialization
import adaattn_core.training.objective
from adaattn_core.checkpoints.model_file import save_model
from adaattn_core.errors import CheckpointError
from adaattn_core.train import Trainer
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import collate
from adaattn_core.training.objective import Networks, StylizedPairs, batch_losses, loss_shares, pair_indices
from tests.helpers.small_models import SMALL_VIDEO, small_model
from tests.helpers.training_runs import STYLE_ONLY, Configure, first_batch


def test_the_total_is_the_weighted_sum(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=0, reconstruct_steps=0, content_weight=7.0, pixel_weight=5.0))
    losses = run.train_step(first_batch(run))
    total = 10 * losses["global"] + 3 * losses["local"] + 7 * losses["content"] + 5 * losses["pixel"]
    assert losses["total"] == pytest.approx(total, rel=1e-5)


def test_each_content_is_stylised_with_several_styles(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure(**STYLE_ONLY | {"self_pairs": 0.25}, batch=4, styles_per_content=2))
    batch = first_batch(run)
    seen: list[StylizedPairs] = []
    original = adaattn_core.training.objective.style_losses

    def style_losses(config: TrainConfig, step: int, networks: Networks, pairs: StylizedPairs) -> dict[str, Tensor]:
        seen.append(pairs)
        return original(config, step, networks, pairs)

    monkeypatch.setattr(adaattn_core.training.objective, "style_losses", style_losses)
    assert batch.n_self_pairs == 1
    batch_losses(run.config, run.step, run.networks, batch)
    ((_, _, pictures, contents, styles),) = seen
    assert list(zip(contents.tolist(), styles.tolist(), strict=True)) == [
        (1, 1),
        (2, 2),
        (3, 3),
        (1, 2),
        (2, 3),
        (3, 1),
    ]
    alone = run.model(batch.content[contents], batch.style[styles])
    assert torch.allclose(pictures, alone, atol=1e-5)  # other batches, other order of additions


def test_a_teacher_without_mistakes_costs_nothing(configure: Configure, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    plain = Trainer(configure(**STYLE_ONLY))
    save_model(plain.averaged_model(), teacher, dtype=torch.float32)
    run = Trainer(configure(**STYLE_ONLY, teacher=str(teacher), teacher_weight=4.0))
    losses = run.train_step(first_batch(run))
    assert losses["teacher"] == pytest.approx(0, abs=0.02)  # only pixels outside 0 to 1, which the teacher clamps
    total = 10 * losses["global"] + 3 * losses["local"] + 4 * losses["teacher"]
    assert losses["total"] == pytest.approx(total, rel=1e-5)
    run.model.decoder.get_parameter("blocks.2.1.bias").data.add_(0.3)
    assert run.train_step(first_batch(run))["teacher"] > 0.2


def test_a_video_model_is_refused_as_a_teacher(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "video.safetensors"
    save_model(small_model(config=SMALL_VIDEO), file)
    with pytest.raises(CheckpointError, match=r"video.safetensors is for video; a teacher must be an image model"):
        Trainer(configure(teacher=str(file)))


def test_styles_per_content_is_limited_by_the_batch() -> None:
    contents, styles = pair_indices(3, n_self_pairs=1, styles_per_content=9)
    assert len(set(zip(contents.tolist(), styles.tolist(), strict=True))) == 1 + 2 * 2


def test_self_pairs_alone_need_no_style_loss(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=0, reconstruct_steps=0, self_pairs=1.0))
    assert run.train_step(first_batch(run)).keys() == {"pixel", "total", "gradient_norm"}


def step_in_parts(configure: Configure, parts: int, **settings: Any) -> tuple[list[dict[str, float]], Trainer]:
    """The losses of all steps, and the run."""
    run = Trainer(configure(accumulate=parts, **settings))
    size = run.config.batch
    whole = [collate([run.pairs[step * size + item] for item in range(size)]) for step in range(run.total)]
    return [run.train_step(batch) for batch in whole], run


@pytest.fixture
def plain_convolutions() -> Iterator[None]:
    """Convolutions that round an item alike in a batch of any size. oneDNN's do not, by 1e-7, which the content
    loss's normalisation of nearly silent channels makes 1e-5, and its gradient 1e-4."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            yield


PARTED = pytest.mark.parametrize("self_pairs", [0.0, 0.25, 0.5, 1.0])
"""Self pairs in 4 parts of a batch of 8: none, one in every other, one in each, nothing else."""


@PARTED
@pytest.mark.usefixtures("plain_convolutions")
def test_a_run_in_parts_has_the_losses_of_a_whole_one(self_pairs: float, configure: Configure) -> None:
    # not 32-pixel crops, of one picture of which the local target (a deviation found by subtracting squares) is so
    # near to rounding alone that this loss differs by 1.5e-5
    settings = {"batch": 8, "crop": 48, "self_pairs": self_pairs}
    (whole, _), (parts, _) = (step_in_parts(configure, count, **settings) for count in (1, 4))
    for step, (one, other) in enumerate(zip(whole, parts, strict=True)):
        assert one.keys() == other.keys()
        for name in one.keys() - {"gradient_norm"}:
            assert other[name] == pytest.approx(one[name], rel=1e-5), f"{name} of step {step}"


@PARTED
@pytest.mark.usefixtures("plain_convolutions")
def test_a_batch_in_parts_has_the_losses_and_the_gradient_of_a_whole_one(
    self_pairs: float, configure: Configure
) -> None:
    settings = {**STYLE_ONLY, "batch": 8, "self_pairs": self_pairs, "content_weight": 1.0, "steps": 1}
    ((one,), run), ((other,), run_in_parts) = (step_in_parts(configure, count, **settings) for count in (1, 4))
    assert other == pytest.approx(one, rel=1e-5)
    whole, parts = (
        torch.cat([p.grad.flatten() for p in run.model.parameters() if p.grad is not None])
        for run in (run, run_in_parts)
    )
    assert float((whole - parts).norm() / whole.norm()) < 1e-5


def test_shares_of_uneven_parts_by_hand(configure: Configure) -> None:
    config = configure(
        **STYLE_ONLY | {"self_pairs": 0.5}, batch=6, styles_per_content=9
    )  # 3 self pairs; parts of 3 hold 2 and 1 of them
    assert loss_shares(config, 0, 2) == (1 / 2, 2 / 3, 1 / 5)  # 1 picture of 1 + 2 x 2
    assert loss_shares(config, 1, 2) == (1 / 2, 1 / 3, 4 / 5)
    batch = first_batch(Trainer(config))
    parts = [batch.micro_batch(index, 2, torch.device("cpu")) for index in range(2)]
    assert [part.n_self_pairs for part in parts] == [2, 1]
    assert all(torch.equal(part.style, batch.style[index::2]) for index, part in enumerate(parts))

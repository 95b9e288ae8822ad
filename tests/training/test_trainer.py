"""One training step: learning rates, optimisers, averaged weights, and losses that fall."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core.checkpoints.model_file import load_model
from adaattn_core.models.config import BASE
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.train import Trainer, TrainingError
from adaattn_core.training.loop import train
from tests.helpers.training_runs import STYLE_ONLY, Configure, fall, first_batch

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"  # Python 3.12 and later, of every DataLoader worker on Linux
)


def test_the_seed_changes_the_run(configure: Configure, tmp_path: Path) -> None:
    losses = [Trainer(configure(seed=seed, **STYLE_ONLY)) for seed in (0, 0, 1)]
    found = [run.train_step(first_batch(run)) for run in losses]
    assert found[0] == found[1] != found[2]


def test_a_bad_gradient_changes_no_weight(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure(**STYLE_ONLY))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    next(run.model.decoder.parameters()).register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingError, match=r"^step 0: the gradient became (nan|inf)\. Nothing is saved yet: start"):
        run.train_step(first_batch(run))
    assert run.step == 0
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_distilling_lowers_its_loss(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=40, reconstruct_steps=0, steps=0, pretrain_lr=1e-3))
    run.initialize()
    decoder = [value.clone() for value in run.model.decoder.state_dict().values()]
    assert fall(run, "distill") < 0.3
    assert all(map(torch.equal, decoder, run.model.decoder.state_dict().values())), "the decoder has no part in it"


@pytest.mark.slow
def test_reconstructing_lowers_its_loss(configure: Configure) -> None:
    run = Trainer(configure(distill_steps=0, reconstruct_steps=150, steps=0, pretrain_lr=1e-3))
    run.initialize()
    assert fall(run, "pixel") < 0.5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_pair_is_overfitted(precision: str, configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=40, lr=1e-3, batch=1, precision=precision))
    run.initialize()
    assert fall(run, "total") < 0.3
    assert all(value.dtype == torch.float32 for value in run.model.state_dict().values())


@pytest.mark.parametrize("settings", [{"optimizer": "muon"}, {"relative_style": True}, {"styles_per_content": 2}])
def test_pairs_are_overfitted_with(settings: dict[str, Any], configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=40, lr=1e-3, **settings))
    run.initialize()
    assert fall(run, "total") < 0.6


def test_a_new_encoder_is_fitted_to_the_vgg(configure: Configure) -> None:
    config = configure(distill_steps=1)
    runs = Trainer(config), Trainer(config)
    runs[1].initialize()
    losses = [run.train_step(first_batch(run))["distill"] for run in runs]
    assert losses[1] < 0.5 * losses[0]


def test_an_encoder_larger_than_the_vgg_starts_at_random(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    run = Trainer(configure(width=0.5))
    before = run.model.encoder.state_dict()["layers.conv3_1.weight"].clone()
    run.initialize()
    assert torch.equal(run.model.encoder.state_dict()["layers.conv3_1.weight"], before)
    assert "the encoder is larger than the VGG-19; it starts from random weights" in caplog.text


def test_the_optimizer_gets_these_learning_rates(configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=4, lr=1e-3))
    for step in range(4):
        run.train_step(first_batch(run))
        rest, encoder = (group["lr"] for group in run.optimizer.param_groups)
        assert (encoder, rest) == run.config.learning_rates(step)
        assert {id(p) for p in run.optimizer.param_groups[1]["params"]} == {
            id(p) for p in run.model.encoder.parameters()
        }


DEEP = re.compile(r"encoder\.layers\.conv(3_2|4|5)|fusion\.attention\.relu[45]|fusion\.merge|decoder\.deep")
"""Parameters that only relu4_1 and relu5_1 go through."""


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_deep_levels_take_their_share_of_the_learning_rates(share: float, configure: Configure) -> None:
    run = Trainer(configure(**STYLE_ONLY, steps=2, lr=1e-3, deep_lr_scale=share))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train_step(first_batch(run))
    encoder, rest = run.config.learning_rates(0)
    assert [group["lr"] for group in run.optimizer.param_groups] == [rest, encoder, rest * share, encoder * share]
    names = {name for name, _ in run.model.named_parameters() if not name.endswith("key_proj.bias")}  # always stays
    moved = {name for name in names if not torch.equal(before[name], run.model.state_dict()[name])}
    assert moved == (names if share else {name for name in names if not DEEP.match(name)})


def test_every_stage_starts_with_a_fresh_optimizer(configure: Configure) -> None:
    run = Trainer(configure())
    for step in range(6):
        run.train_step(first_batch(run))
        counts = {int(state["step"]) for state in run.optimizer.state.values()}
        assert counts == {step % 2 + 1}


def test_averaged_weights_by_hand(configure: Configure) -> None:
    run = Trainer(configure(steps=3, distill_steps=1, reconstruct_steps=0, lr=1e-2))
    seen: list[Tensor] = []
    for _ in range(4):
        run.train_step(first_batch(run))
        seen.append(run.model.state_dict()["decoder.deep.weight"].clone())
        if len(seen) == 1:
            assert torch.equal(run.ema["decoder.deep.weight"], seen[0])  # before the style stage: the weights
    expected = seen[0]
    for kept, weight in zip((1 / 10, 2 / 11, 3 / 12), seen[1:], strict=True):
        expected = kept * expected + (1 - kept) * weight
    torch.testing.assert_close(run.ema["decoder.deep.weight"], expected)
    averaged = run.averaged_model().state_dict()["decoder.deep.weight"]
    assert torch.equal(averaged, run.ema["decoder.deep.weight"])
    long = configure(steps=100_000)
    assert long.ema_decay_at(90_000) == long.ema_decay == 0.999


def test_long_gradients_are_shortened(configure: Configure) -> None:
    def gradient(clip_norm: float) -> tuple[float, float]:
        run = Trainer(configure(**STYLE_ONLY, clip_norm=clip_norm))
        reported = run.train_step(first_batch(run))["gradient_norm"]
        parts = [p.grad.norm() for p in run.model.parameters() if p.grad is not None]
        return reported, float(torch.stack(parts).norm())

    whole, left = gradient(0.0)
    assert left == pytest.approx(whole, rel=1e-4)
    whole_again, shortened = gradient(whole / 8)
    assert whole_again == whole and shortened == pytest.approx(whole / 8, rel=1e-4)


def test_adamw_shrinks_what_adam_leaves(configure: Configure) -> None:
    weights = {}
    for decay in (0.0, 0.5):
        run = Trainer(configure(**STYLE_ONLY, optimizer="adamw", weight_decay=decay, lr=0.1))
        before = run.model.decoder.state_dict()["deep.weight"].clone()
        run.train_step(first_batch(run))
        weights[decay] = run.model.decoder.state_dict()["deep.weight"]
    torch.testing.assert_close(weights[0.0] - weights[0.5], 0.1 * 0.5 * before, rtol=1e-4, atol=1e-7)


def test_a_run_starts_from_weights(configure: Configure, tmp_path: Path) -> None:
    first = configure(steps=1, distill_steps=0, reconstruct_steps=0)
    file = train(first)
    run = Trainer(configure(init=str(file), output=str(tmp_path / "second"), **STYLE_ONLY, width=1.0))
    assert run.model.config == first.model_config(), "the file's architecture is taken over"
    for name, value in load_model(file).state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value)
    assert all(p.requires_grad for p in run.model.parameters())
    run.train_step(first_batch(run))


def test_the_full_size_model_is_trained_on_the_vgg_inside_and_saved_without_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real load_vgg
    settings = {"architecture": "base", "width": 1.0, "freeze_encoder": True, "vgg": "built-in"}
    run = Trainer(configure(batch=1, reconstruct_steps=0, steps=1, self_pairs=0.0, relative_local=True, **settings))
    run.train_step(first_batch(run))
    (run.folder / "checkpoints").mkdir(parents=True)
    run.save()
    file = run.folder / "model.safetensors"
    assert file.stat().st_size < 20e6
    assert load_model(file).config == BASE


def test_a_frozen_encoder_is_the_vgg_and_stays_so(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real load_vgg
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        torch.save(
            {f"{name.removeprefix('layers.')}": x for name, x in VGGEncoder().state_dict().items()}, tmp_path / "v.pth"
        )
    frozen = {
        "architecture": "published",
        "width": 1.0,
        "freeze_encoder": True,
        "optimizer": "adamw",
        "weight_decay": 0.1,
    }
    run = Trainer(
        configure(vgg=str(tmp_path / "v.pth"), batch=1, reconstruct_steps=0, steps=2, self_pairs=0.0, **frozen)
    )
    vgg = {name: value.clone() for name, value in run.vgg.state_dict().items()}
    assert [run.config.stage(step)[0] for step in (0, 1)] == ["style", "style"], "there is nothing to distill"
    decoder = run.model.decoder.state_dict()["deep.weight"].clone()
    run.train_step(first_batch(run))
    assert not torch.equal(decoder, run.model.decoder.state_dict()["deep.weight"])
    for state in (run.model.encoder.state_dict(), run.averaged_model().encoder.state_dict()):
        assert all(torch.equal(value, vgg[name]) for name, value in state.items())

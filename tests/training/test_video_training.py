"""Training of the video model: pairs of frames, what is asked of them, and the optional losses beside it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import adaattn_core.training.objective
from adaattn_core.checkpoints.model_file import load_model, save_model
from adaattn_core.errors import CheckpointError, DataError
from adaattn_core.inference.stylize import stylize
from adaattn_core.models.attention import stacked_key
from adaattn_core.models.config import BASE, COMPACT, VIDEO_LEVELS, ModelConfig
from adaattn_core.models.encoder import LEVELS, Features
from adaattn_core.ops.statistics import normalize_channels
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.dataset import PairSchedule, TrainingPairs, collate, synthetic_motion_pair
from adaattn_core.training.loop import train
from adaattn_core.training.losses import (
    LocalTarget,
    color_loss,
    identity_loss,
    image_similarity_loss,
    local_target,
)
from adaattn_core.training.objective import Networks, StylizedPairs, batch_losses, split_frames
from adaattn_core.training.run_checkpoint import CHECKPOINT, read_checkpoint
from adaattn_core.training.trainer import Trainer
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_training import tiny_settings, use_small_vgg
from tests.helpers.training_runs import Configure, fall, stop_before

CROP = 32


@pytest.fixture
def configure(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Makes the config of a tiny run of 4 steps of the style stage alone; arguments override."""
    use_small_vgg(monkeypatch)
    style_only = {"distill_steps": 0, "reconstruct_steps": 0, "steps": 4, "warmup_steps": 0, "kind": "video"}
    return partial(replace, TrainConfig(**tiny_settings(pictures, tmp_path / "run") | style_only))


def write_clip(folder: Path, names: list[str]) -> None:
    """Frames of one grey, which counts up from 100 by 10."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("L", (40, 40), 100 + 10 * number).save(folder / name)


def pairs_of(content: Path, frame_gap: int, style: Path | None = None) -> TrainingPairs:
    return TrainingPairs(content, style or content, PairSchedule(60, 2), crop=CROP, seed=0, frame_gap=frame_gap)


def greys(pairs: TrainingPairs) -> set[tuple[int, int]]:
    """Grey of content and target of every item."""
    return {
        (round(255 * float(pair.content.mean())), round(255 * float(pair.target.mean())))
        for pair in (pairs[index] for index in range(len(pairs)))
    }


# ---------------------------------------------------------------- pairs of frames


def test_frames_are_neighbours_in_one_folder(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "a", ["f9.png", "f10.png", "f11.png"])
    write_clip(tmp_path / "clips" / "b", ["x.png"])
    assert greys(pairs_of(tmp_path / "clips", 1)) == {(100, 110), (110, 120)}
    assert greys(pairs_of(tmp_path / "clips", 9)) == {(100, 110), (110, 120), (100, 120)}


def test_two_frames_are_cut_alike(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 200, (50, 60, 3), dtype=np.uint8)
    (tmp_path / "clip").mkdir()
    Image.fromarray(first).save(tmp_path / "clip" / "1.png")
    Image.fromarray(first + 50).save(tmp_path / "clip" / "2.png")
    pairs = pairs_of(tmp_path / "clip", 1)
    for index in range(10):
        brighter = pairs[index].target - pairs[index].content
        assert float((brighter - 50 / 255).abs().max()) < 0.06, index  # bicubic overshoot is cut at white and black


def test_a_still_is_moved_a_little() -> None:
    columns, rows = np.meshgrid(np.arange(120), np.arange(100))
    still = Image.fromarray(np.stack([columns, rows, rows], axis=-1).astype(np.uint8))
    offsets = []
    for seed in range(40):
        one, other = synthetic_motion_pair(still, CROP, (1.0, 2.0), torch.Generator().manual_seed(seed))
        side, zoomed = (255 * float(x[1].amax() - x[1].amin()) + 1 for x in (one, other))
        assert abs(zoomed - side) < 0.03 * side + 1.5, f"seed {seed}"  # rows are counted in whole ones
        offsets.append(255 * float((other - one)[1].mean()) / side)
    assert max(offsets) < 0.05 and min(offsets) > -0.05 and max(offsets) - min(offsets) > 0.04


@pytest.mark.parametrize("size", [(1, 1), (33, 31), (2, 500)])
def test_stills_of_any_size_give_frames(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "odd.png")
    pair = pairs_of(tmp_path, 0)[0]
    assert pair.content.shape == pair.target.shape == (3, CROP, CROP)


def test_folders_of_single_pictures_are_no_clips(tmp_path: Path) -> None:
    write_clip(tmp_path / "stills" / "a", ["x.png"])
    write_clip(tmp_path / "stills" / "b", ["y.png"])
    with pytest.raises(DataError) as caught:
        pairs_of(tmp_path / "stills", 2)
    assert str(caught.value) == (
        f"no folder of {tmp_path / 'stills'} holds two pictures, and two frames of a clip are needed. Give each clip a "
        "folder of its own, or make pairs of stills with --frame-gap 0."
    )


def test_a_broken_frame_is_passed_over_and_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", ["1.png", "2.png", "3.png"])
    (tmp_path / "a" / "2.png").write_bytes(b"no picture")
    pairs = pairs_of(tmp_path / "a", 2)
    assert greys(pairs) == {(100, 120)}
    assert {name for index in range(20) for name in pairs[index].unreadable} == {str(tmp_path / "a" / "2.png")}


# ---------------------------------------------------------------- formulas


def columns(*vectors: tuple[float, float]) -> Features:
    """Positions in a row: (1, 2, 1, W)."""
    return {"relu3_1": torch.tensor(vectors).T.reshape(1, 2, 1, -1)}


def test_image_similarity_by_hand() -> None:
    """cos of (1, 0) with (3, 0) is 1, with (0, 2) 0, with (1, 1) 1 / sqrt 2; columns are divided by their sums."""
    x, y, between = (1.0, 0.0), (0.0, 2.0), (1.0, 1.0)
    content = columns(x, y), columns((3.0, 0.0), y)  # D = [[0, 1], [1, 0]]
    stylized = columns(x, y), columns(between, y)  # [[1 - r, 1], [1 - r, 0]] with r = 1 / sqrt 2 -> [[.5, 1], [.5, 0]]

    def loss(found: tuple[Features, Features]) -> float:
        generator = torch.Generator().manual_seed(0)
        return float(image_similarity_loss(found, content, ["relu3_1"], 10, generator))

    assert loss(stylized) == pytest.approx((0.5 + 0.5 + 0 + 0) / 2, abs=1e-5)  # two columns, averaged
    assert loss(content) == pytest.approx(0, abs=1e-6)
    opposite = columns(y, x), content[1]  # [[1, 0], [0, 1]]: every column is all wrong
    assert loss(opposite) == pytest.approx(2, abs=1e-5)


def test_sampled_positions_are_the_same_in_content_and_stylized() -> None:
    generator = torch.Generator().manual_seed(1)
    frames = tuple({"relu2_1": torch.rand(2, 5, 8, 8, generator=generator)} for _ in range(2))
    assert len(frames) == 2
    same = image_similarity_loss((frames[0], frames[1]), (frames[0], frames[1]), ["relu2_1"], 7, generator)
    assert float(same) == 0


def test_equal_frames_have_a_gradient_that_is_finite() -> None:
    flat = torch.ones(1, 3, 4, 4, requires_grad=True)
    content = {"relu1_1": torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))}
    loss = image_similarity_loss(({"relu1_1": flat},) * 2, (content,) * 2, ["relu1_1"], 9, torch.Generator())
    loss.backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None and bool(flat.grad.isfinite().all())


def test_identity_loss_by_hand() -> None:
    original, painted = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)
    wanted, found = {"relu1_1": torch.zeros(1, 1, 1, 2)}, {"relu1_1": torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)}
    assert float(identity_loss(painted, original, found, wanted)) == pytest.approx(50 * 0.01 + 2)
    assert float(identity_loss(original, original, wanted, wanted)) == 0


def test_color_loss_by_hand() -> None:
    black, white = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert float(color_loss(white, black)) == pytest.approx(1, abs=1e-3)
    noise = picture(16, 16, seed=3)
    assert float(color_loss(noise, noise.flip(-1))) == pytest.approx(0, abs=1e-6)  # it matters not where a colour is


def test_color_loss_paints_towards_the_palette() -> None:
    style, own = picture(16, 16, seed=4), torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    color_loss(own, style).backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None
    nearer = (own - 0.02 * own.grad / own.grad.abs().max()).detach()
    assert color_loss(nearer, style) < color_loss(own, style)


def test_the_local_target_of_a_video_is_cosine() -> None:
    features = [
        small_model(config=ModelConfig(channels=(4, 6, 8, 8, 8))).encoder(picture(32, 32, seed=i)) for i in (1, 2)
    ]
    query, key = (normalized_rows(stacked_key(x, "relu3_1")) for x in features)
    weights = torch.relu(query @ key.transpose(1, 2) + 1)
    weights = weights / weights.sum(dim=2, keepdim=True)
    value = features[1]["relu3_1"].flatten(2).transpose(1, 2)
    mean = weights @ value
    std = (weights @ value.square() - mean.square()).clamp_min(0).sqrt()
    own = normalize_channels(features[0]["relu3_1"])
    expected = std.transpose(1, 2).reshape(own.shape) * own + mean.transpose(1, 2).reshape(own.shape)
    found = local_target(features[0], features[1], "relu3_1", LocalTarget(similarity="cosine"))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)  # 1e-5 is added to every length


def normalized_rows(key: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) -> (1, H W, C) of length 1."""
    return F.normalize(key.flatten(2).transpose(1, 2), dim=2)


# ---------------------------------------------------------------- runs


def test_the_config_is_the_papers() -> None:
    compact, published, base = (
        TrainConfig(content="", style="", vgg="", output="", kind="video", architecture=x).model_config()
        for x in ("compact", "published", "base")
    )
    assert published == ModelConfig(levels=VIDEO_LEVELS, similarity="cosine"), "the published video model"
    assert base == replace(BASE, levels=VIDEO_LEVELS, similarity="cosine", projection_channels=(64,), logit_scale=None)
    assert compact == replace(
        COMPACT, levels=VIDEO_LEVELS, similarity="cosine", projection_channels=(48,), style_cells=(2,)
    )


def test_both_frames_are_painted_in_one_style(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer(configure(batch=4, self_pairs=0.25))
    batch = collate([run.pairs[index] for index in range(4)])
    seen: list[StylizedPairs] = []
    original = adaattn_core.training.objective.style_losses

    def style_losses(
        config: TrainConfig, step: int, networks: Networks, pairs: StylizedPairs
    ) -> dict[str, torch.Tensor]:
        seen.append(pairs)
        return original(config, step, networks, pairs)

    monkeypatch.setattr(adaattn_core.training.objective, "style_losses", style_losses)
    assert batch.n_self_pairs == 1
    batch_losses(run.config, run.step, run.networks, batch)
    ((content, style, painted, contents, styles),) = seen
    first, second = content[contents].chunk(2)
    assert torch.equal(first, batch.content[1:]) and torch.equal(second, batch.target[1:])
    assert torch.equal(style[styles], torch.cat([batch.style[1:]] * 2))
    alone = run.model(batch.target[1:], batch.style[1:])
    assert torch.allclose(painted[3:], alone, atol=1e-5)
    halves = split_frames({"relu1_1": painted})
    assert torch.equal(halves[1]["relu1_1"], painted[3:])


QUIET: dict[str, Any] = {"steps": 12, "lr": 1e-3, "self_pairs": 0.0, "global_weight": 0.1, "local_weight": 0.1}
"""Runs in which one loss has the say."""


def test_a_frame_pair_is_learnt(configure: Configure) -> None:
    run = Trainer(configure(**QUIET, similarity_weight=100.0))
    run.initialize()
    assert fall(run, "similarity") < 0.8


@pytest.mark.parametrize(("loss", "share"), [("identity", 0.75), ("color", 0.5), ("mesh", 0.6), ("patch", 0.9)])
def test_an_optional_loss_is_learnt(loss: str, share: float, configure: Configure) -> None:
    run = Trainer(configure(**QUIET, kind="image", **{f"{loss}_weight": 100.0}))
    run.initialize()
    assert fall(run, loss) < share


def test_the_total_counts_the_optional_losses(configure: Configure) -> None:
    run = Trainer(
        configure(identity_weight=2.0, color_weight=5.0, mesh_weight=4.0, patch_weight=6.0, similarity_weight=7.0)
    )
    losses = run.train_step(collate([run.pairs[index] for index in range(2)]))
    weights = {"global": 10, "local": 3, "pixel": 20, "identity": 2, "color": 5, "mesh": 4, "patch": 6, "similarity": 7}
    assert losses["total"] == pytest.approx(sum(weight * losses[name] for name, weight in weights.items()), rel=1e-5)


def test_parts_of_a_batch_of_frames_have_the_losses_of_the_whole(configure: Configure) -> None:
    settings = {"batch": 8, "crop": 48, "self_pairs": 0.25, "identity_weight": 1.0, "color_weight": 1.0, "steps": 1}
    runs = [Trainer(configure(accumulate=parts, **settings)) for parts in (1, 4)]
    batch = collate([runs[0].pairs[index] for index in range(8)])
    whole, parts = (run.train_step(batch) for run in runs)
    assert parts == pytest.approx(whole, rel=2e-3)  # oneDNN rounds otherwise in a batch of another size


@pytest.mark.parametrize("frame_gap", [0, 1])
def test_a_stopped_video_run_ends_as_an_uninterrupted_one(
    frame_gap: int, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"frame_gap": frame_gap, "identity_weight": 1.0, "color_weight": 1.0}
    whole, stopped = configure(output=str(tmp_path / "whole"), **settings), configure(workers=1, **settings)
    train(whole)

    stop_before(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    file = train(stopped, resume=True)
    weights = [read_checkpoint(Path(config.output) / CHECKPOINT)["model"] for config in (whole, stopped)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    model = load_model(file)
    assert (model.config.levels, model.config.similarity) == (VIDEO_LEVELS, "cosine")
    result = stylize(model, picture(40, 56, seed=1), picture(48, 32, seed=2))
    assert result.shape == (1, 3, 40, 56) and bool(result.isfinite().all())


def test_a_frozen_vgg_trains_a_video_model(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(architecture="published", width=1.0, freeze_encoder=True, batch=1, self_pairs=0.0)
    small = ModelConfig(
        channels=(8, 8, 16, 32, 32), encoder_convs=(2, 2, 2, 2, 1), levels=VIDEO_LEVELS, similarity="cosine"
    )
    monkeypatch.setattr(TrainConfig, "model_config", lambda _: small)  # the loss network of this test is as narrow
    run = Trainer(config)
    before = {name: value.clone() for name, value in run.model.encoder.state_dict().items()}
    key = run.model.fusion.state_dict()["attention.relu3_1.key_proj.weight"].clone()
    assert "similarity" in run.train_step(collate([run.pairs[0]]))
    assert all(torch.equal(value, before[name]) for name, value in run.model.encoder.state_dict().items())
    assert not torch.equal(key, run.model.fusion.state_dict()["attention.relu3_1.key_proj.weight"])


@pytest.mark.parametrize(("file", "kind"), [("image", "video"), ("video", "image")])
def test_weights_of_the_other_kind_are_refused(file: str, kind: str, configure: Configure, tmp_path: Path) -> None:
    levels = {"image": LEVELS[2:], "video": VIDEO_LEVELS}[file]
    path = tmp_path / "first.safetensors"
    save_model(small_model(config=ModelConfig(channels=(4, 4, 4, 4, 4), levels=levels)), path)
    with pytest.raises(CheckpointError) as caught:
        train(configure(kind=kind, init=str(path)))
    assert str(caught.value) == f"{path} is for {file}, this run for {kind}. Use --kind {file}."


def test_image_runs_know_nothing_of_frames(configure: Configure) -> None:
    run = Trainer(configure(kind="image"))
    losses = run.train_step(collate([run.pairs[index] for index in range(2)]))
    assert losses.keys() == {"pixel", "global", "local", "total", "gradient_norm"}
    saved = json.loads(json.dumps(losses))
    assert all(math.isfinite(value) for value in saved.values())
    assert torch.equal(run.pairs[1].content, run.pairs[1].target)

"""The plain reference computes what the published implementation computed, stage by stage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks import reference
from benchmarks.reference import LEVELS, Features, Masks, Sampling
from tests.helpers.golden_oracle import (
    check_stage,
    load_oracle,
    relative_error,
    sample_positions,
    stage_names,
    state_dict,
    tolerance,
)

Files = dict[str, dict[str, Tensor]]
TRAINED = ("adaattn_3", "transformer", "decoder")


@pytest.fixture(scope="module")
def files() -> Files:
    return {name: state_dict(name) for name in ("vgg", *TRAINED, "video.transformer", "video.decoder")}


@pytest.fixture(scope="module")
def oracle() -> dict[str, Tensor]:
    return load_oracle()


@pytest.fixture(scope="module")
def features(files: Files, oracle: dict[str, Tensor]) -> dict[str, Features]:
    """Features of `content` and `style` of the image model."""
    return {name: reference.encode(files["vgg"], oracle[f"image.{name}"]) for name in ("content", "style")}


@pytest.mark.parametrize("picture", ["content", "style"])
def test_encoder(features: dict[str, Features], picture: str) -> None:
    for level in LEVELS:
        check_stage(f"image.{picture}_{level}", features[picture][level])


@pytest.mark.parametrize("picture", ["content", "style"])
def test_stacked_keys(features: dict[str, Features], picture: str) -> None:
    for level in LEVELS[2:]:
        check_stage(f"image.{picture}_key_{level}", reference.stacked_key(features[picture], level))


def test_fusion_decoder_and_losses(files: Files, features: dict[str, Features]) -> None:
    fused = reference.fuse(files, features["content"], features["style"])
    for level in LEVELS[2:]:
        check_stage(f"image.fused_{level}", fused[level])
    check_stage("image.merged", fused["merged"])
    output = reference.decode(files["decoder"], fused)
    check_stage("image.output", output)
    ours = reference.encode(files["vgg"], output)
    for level in LEVELS:
        check_stage(f"image.output_{level}", ours[level])
    losses = reference.losses(ours, features["content"], features["style"])
    for name, loss in losses.items():
        check_stage(f"image.loss_{name}", loss)
    check_stage("image.loss_total_10global_3local", 10 * losses["global"] + 3 * losses["local"])


def test_gradients(files: Files, features: dict[str, Features]) -> None:
    trained = {name: {key: x.clone().requires_grad_() for key, x in files[name].items()} for name in TRAINED}
    fused = reference.fuse(trained, features["content"], features["style"])
    ours = reference.encode(files["vgg"], reference.decode(trained["decoder"], fused))
    losses = reference.losses(ours, features["content"], features["style"])
    torch.autograd.backward(10 * losses["global"] + 3 * losses["local"])
    for stage in stage_names("image.grad_norm."):
        key = stage.removeprefix("image.grad_norm.")
        name = next(name for name in TRAINED if key.startswith(f"{name}."))
        gradient = trained[name][key.removeprefix(f"{name}.")].grad
        assert gradient is not None, f"{key} has no gradient"
        check_stage(stage, gradient.norm())


def test_region_masks(files: Files, oracle: dict[str, Tensor]) -> None:
    content, style = (reference.encode(files["vgg"], oracle[f"masks.{name}"]) for name in ("content", "style"))
    masks = Masks(oracle["masks.content_mask"], oracle["masks.style_mask"])
    fused = reference.fuse(files, content, style, masks=masks)
    check_stage("masks.fused_relu3_1", fused["relu3_1"])
    check_stage("masks.merged", fused["merged"])
    check_stage("masks.output", reference.stylize(files, oracle["masks.content"], oracle["masks.style"], masks=masks))


def test_video(files: Files, oracle: dict[str, Tensor]) -> None:
    content, style = (reference.encode(files["vgg"], oracle[f"video.{name}"]) for name in ("content", "style"))
    check_stage("video.fused_relu3_1", reference.fuse_frames(files, content, style))
    check_stage("video.output", reference.stylize_frames(files, oracle["video.content"], oracle["video.style"]))


def test_sampling_follows_the_generator_and_leaves_the_global_one_alone(
    files: Files, features: dict[str, Features]
) -> None:
    def sampled(seed: int) -> Tensor:
        sampling = Sampling(shallow=20, deep=20, generator=torch.Generator().manual_seed(seed))
        return reference.fuse(files, features["content"], features["style"], sampling)["merged"]

    state = torch.get_rng_state()
    first, again, other = sampled(0), sampled(0), sampled(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_all_positions_sampled_is_exact(files: Files, features: dict[str, Features]) -> None:
    every, exact = (
        reference.fuse(files, features["content"], features["style"], Sampling(samples, samples))["relu3_1"]
        for samples in (12 * 16, None)
    )
    assert torch.equal(every, exact)


def test_one_hot_attention_copies_a_position_and_uniform_attention_gives_global_statistics() -> None:
    # One style position per column, value 1 and 3; content of mean 0 and (unbiased) variance 1.
    value = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    content = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2) / math.sqrt(2)
    key = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    one_hot = reference.adaattn(torch.full_like(key, 100.0), key, value, content, None, None)
    assert torch.equal(one_hot, torch.full_like(key, 3.0))  # softmax([0, 100]) is [0, 1] in float32
    uniform = reference.adaattn(torch.zeros_like(key), key, value, content, None, None)
    # Mean 2, std 1 (of all values, biased); 1e-5 in the content's variance moves the result by 4e-6.
    torch.testing.assert_close(uniform, content + 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 64), (64, 16)])
def test_sizes_the_published_code_cannot_take(files: Files, size: tuple[int, int]) -> None:
    message = f"images are {size[1]}x{size[0]} pixels; the published code needs multiples of 16 from 32 up"
    with pytest.raises(ValueError, match=message):
        reference.encode(files["vgg"], torch.zeros(1, 3, *size))


def test_sampling_needs_a_generator(files: Files, features: dict[str, Features]) -> None:
    with pytest.raises(ValueError, match="192 style positions, of which 20 are to be sampled; pass a generator"):
        reference.fuse(files, features["content"], features["style"], Sampling(shallow=20))


def test_the_oracle_notices_a_difference(features: dict[str, Features]) -> None:
    stage, right = "image.content_relu3_1", features["content"]["relu3_1"]
    wrong = right + 1e-3 * right.abs().mean() * torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    assert relative_error(stage, wrong) > tolerance(stage)
    with pytest.raises(
        AssertionError, match=r"image.content_relu3_1: relative error .*, allowed 0.0005; mean .*golden"
    ):
        check_stage(stage, wrong)
    with pytest.raises(AssertionError, match="has shape"):
        check_stage(stage, right.mT)
    outside = right.flatten().clone()
    unstored = next(i for i in range(outside.numel()) if i not in set(sample_positions(outside.numel(), 512).tolist()))
    outside[unstored] = math.nan
    with pytest.raises(AssertionError, match="relative error nan"):
        check_stage(stage, outside.reshape(right.shape))


@pytest.mark.parametrize(("size", "count"), [(2 * 256 * 16 * 12, 512), (7, 7), (2, 1)])
def test_sample_positions_differ(size: int, count: int) -> None:
    positions = sample_positions(size, count)
    assert len(set(positions.tolist())) == count
    assert positions.min() >= 0
    assert positions.max() < size

"""The training losses against values solved by hand, and the normalisation of the VGG-19 they are computed on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaattn_core.evaluation.metrics import patch_distance
from adaattn_core.models.attention import attention_target
from adaattn_core.models.encoder import LEVELS, Features, ReflectConv2d, VGGEncoder
from adaattn_core.training.losses import (
    LocalTarget,
    checkerboard_loss,
    content_loss,
    global_style_loss,
    local_feature_loss,
    local_target,
    normalize_activations,
    patch_loss,
    relative_style_loss,
    teacher_loss,
)
from tests.helpers.small_models import picture

EPSILON = 1e-5
"""Added to every variance."""


def features(seed: int, size: int = 16, batch: int = 2) -> Features:
    """Random features on the grids of a picture of `size` pixels, >= 0 as after ReLU."""
    generator = torch.Generator().manual_seed(seed)
    channels = (2, 3, 4, 5, 5)
    return {
        level: torch.rand(batch, c, size >> i, size >> i, generator=generator)
        for i, (level, c) in enumerate(zip(LEVELS, channels, strict=True))
    }


def row(*values: float) -> Tensor:
    """One channel with its positions in a row: (1, 1, 1, W)."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def narrow_vgg(seed: int = 0) -> VGGEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return VGGEncoder((4, 6, 8, 8, 8))


# ---------------------------------------------------------------- hand-solved


def test_content_loss_by_hand() -> None:
    # [0, 2] has mean 1 and unbiased variance 2: it normalises to -+ 1/sqrt(2 + e); [3, 3] normalises to 0.
    loss = content_loss({"relu1_1": row(0, 2)}, {"relu1_1": row(3, 3)}, ["relu1_1"])
    assert float(loss) == pytest.approx(1 / (2 + EPSILON), rel=1e-6)


def test_relative_style_loss_by_hand() -> None:
    # [0, 2] has mean 1 and deviation sqrt(2), [0, 4] twice of both: half of the wanted length is missing.
    found, wanted = {"relu1_1": row(0, 2)}, {"relu1_1": row(0, 4)}
    assert float(relative_style_loss(found, wanted, ["relu1_1"])) == pytest.approx(0.5, abs=1e-4)  # e in the variance


def test_relative_style_loss_weighs_loud_and_quiet_styles_alike() -> None:
    found, wanted = features(0), features(1)
    loud, wanted_loud = ({level: 100 * x for level, x in one.items()} for one in (found, wanted))
    assert float(relative_style_loss(loud, wanted_loud)) == pytest.approx(
        float(relative_style_loss(found, wanted)), rel=1e-3
    )


@pytest.mark.parametrize("loss", [global_style_loss, relative_style_loss])
def test_style_losses_of_half_precision_features_agree_with_float32(loss: Callable[..., Tensor]) -> None:
    found, wanted = ({level: (3 * x).bfloat16() for level, x in features(seed, size=64).items()} for seed in (0, 1))
    wide = [{level: x.float() for level, x in one.items()} for one in (found, wanted)]
    # Deviations are rounded to 8 bits, 0.4 % each; the losses of these features are differences of some per cent.
    assert float(loss(found, wanted)) == pytest.approx(float(loss(*wide)), rel=0.02, abs=1e-4)


def test_content_loss_sees_no_brightness_or_contrast() -> None:
    found = features(0)
    loss = content_loss({level: 3 * x + 5 for level, x in found.items()}, found)
    assert float(loss) < 1e-6  # not 0: e weighs less beside a 9 times larger variance


def test_global_style_loss_by_hand() -> None:
    # means 1 and 4; standard deviations sqrt(2 + e) and sqrt(e)
    loss = global_style_loss({"relu1_1": row(0, 2)}, {"relu1_1": row(4, 4)}, ["relu1_1"])
    expected = (1 - 4) ** 2 + (math.sqrt(2 + EPSILON) - math.sqrt(EPSILON)) ** 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_global_style_loss_sees_no_places() -> None:
    found = features(0)
    turned = {level: x.flip(-1).transpose(-1, -2) for level, x in found.items()}
    assert float(global_style_loss(turned, found)) < 1e-10


def test_local_loss_with_one_style_position_by_hand() -> None:
    # All weight lies on the one position: the target is its value, 7, and its deviation is 0.
    content, style = {"relu1_1": row(0, 2)}, {"relu1_1": row(7)}
    assert torch.equal(local_target(content, style, "relu1_1"), row(7, 7))
    loss = local_feature_loss({"relu1_1": row(7, 4)}, content, style, ["relu1_1"])
    assert float(loss) == pytest.approx((0**2 + 3**2) / 2)


def test_local_target_by_hand() -> None:
    # Normalised, [0, 2] is -+ s with s = 1/sqrt(2 + e), as query and as key: the logits are -+ s^2, and the weights
    # of the own and the other position p = sigmoid(2 s^2) and 1 - p. Values 0 and 2 have then, at the left position,
    # mean 2 (1 - p) and deviation 2 sqrt(p (1 - p)).
    s = 1 / math.sqrt(2 + EPSILON)
    p = 1 / (1 + math.exp(-2 * s * s))
    deviation = 2 * math.sqrt(p * (1 - p))
    expected = row(deviation * -s + 2 * (1 - p), deviation * s + 2 * p)
    same = {"relu1_1": row(0, 2)}
    torch.testing.assert_close(local_target(same, same, "relu1_1"), expected, rtol=1e-5, atol=1e-6)


def test_a_relative_local_loss_by_hand() -> None:
    # The target is 7 at both positions, of mean square 49; the squared errors are 0 and 9.
    content, style = {"relu1_1": row(0, 2)}, {"relu1_1": row(7)}
    loss = local_feature_loss({"relu1_1": row(7, 4)}, content, style, ["relu1_1"], relative=True)
    assert float(loss) == pytest.approx(4.5 / 49)


def test_a_local_target_with_bounded_logits_by_hand() -> None:
    # One channel: the cosines are -1 and 1, whatever the size of the keys, and the logits -+ the scale.
    p = 1 / (1 + math.exp(-2 * 0.7))
    s, deviation = 1 / math.sqrt(2 + EPSILON), 2 * math.sqrt(p * (1 - p))
    expected = row(deviation * -s + 2 * (1 - p), deviation * s + 2 * p)
    same = {"relu1_1": row(0, 2)}
    target = local_target(same, same, "relu1_1", LocalTarget(logit_scale=0.7))
    torch.testing.assert_close(target, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(target, attention_target(same, same, "relu1_1", logit_scale=0.7))


def test_the_distance_to_a_teacher_by_hand() -> None:
    # Pixels differ by .5. Features 3 and 1 against 4 and 0: mean squared error 1, mean square of the target 8.
    picture, target = torch.full((1, 3, 2, 2), 0.25), torch.full((1, 3, 2, 2), 0.75)
    loss = teacher_loss(picture, target, {"relu3_1": row(3, 1), "relu4_1": row(9)}, {"relu3_1": row(4, 0)})
    assert float(loss) == pytest.approx(0.5 + 1 / 8)


def test_patch_loss_by_hand() -> None:
    # The style's patches are (0, 4) and (2, 0), normalised opposite to each other: (-a, a) and (a, -a). The picture's
    # (2, 4) and (2, 0) become (a, a) and (a, -a): cosines 0 and 0, -1 and 1. In either direction (1 + 0) / 2.
    style = {"relu3_1": torch.tensor([[[[0.0, 2.0]], [[4.0, 0.0]]]])}
    stylized = {"relu3_1": torch.tensor([[[[2.0, 2.0]], [[4.0, 0.0]]]])}
    assert float(patch_loss(stylized, style, ["relu3_1"])) == pytest.approx(0.5, abs=1e-4)


def test_patch_loss_is_the_patch_distance_of_evaluations() -> None:
    stylized, style = features(0, size=64, batch=3), features(1, size=48, batch=3)
    wanted = torch.stack([patch_distance(stylized[level], style[level]).mean() for level in LEVELS[2:4]]).mean()
    torch.testing.assert_close(patch_loss(stylized, style), wanted, atol=1e-3, rtol=0)  # e in the variance


# ---------------------------------------------------------------- properties


def test_equal_features_cost_nothing() -> None:
    found = features(0)
    assert float(content_loss(found, found, LEVELS)) == 0
    assert float(global_style_loss(found, found, LEVELS)) == 0
    assert float(patch_loss(found, found)) == pytest.approx(0, abs=1e-6)
    target = {level: local_target(found, features(1), level) for level in LEVELS}
    assert float(local_feature_loss(target, found, features(1), LEVELS)) == 0


def test_levels_add_up() -> None:
    one, other = features(0), features(1)
    for loss in (content_loss, global_style_loss):
        parts = [loss(one, other, [level]) for level in LEVELS]
        torch.testing.assert_close(loss(one, other, LEVELS), torch.stack(parts).sum())
    parts = [local_feature_loss(one, other, features(2), [level]) for level in LEVELS]
    torch.testing.assert_close(local_feature_loss(one, other, features(2), LEVELS), torch.stack(parts).sum())


def test_the_gradient_reaches_the_stylized_picture_alone() -> None:
    stylized, content, style = features(0), features(1), features(2)
    for x in (*stylized.values(), *content.values(), *style.values()):
        x.requires_grad_(True)
    local_feature_loss(stylized, content, style, LEVELS).backward()  # type: ignore[no-untyped-call]
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in stylized.values())
    assert all(x.grad is None for x in (*content.values(), *style.values()))


def test_flat_features_have_finite_gradients() -> None:
    flat = {level: torch.ones_like(x).requires_grad_(True) for level, x in features(0).items()}
    other = features(1)
    loss = content_loss(flat, other) + global_style_loss(flat, other) + local_feature_loss(flat, other, other)
    loss = loss + patch_loss(flat, other) + patch_loss(other, flat)
    loss.backward()  # type: ignore[no-untyped-call]
    for level, x in flat.items():
        if level in LEVELS[1:]:  # the published levels
            assert x.grad is not None and bool(x.grad.isfinite().all()), level


def test_as_many_samples_as_positions_are_all_of_them() -> None:
    content, style = features(0), features(1, size=32)
    exact = local_target(content, style, "relu3_1")
    assert torch.equal(local_target(content, style, "relu3_1", LocalTarget(samples=8 * 8)), exact)


def test_a_sampled_target_is_its_generators() -> None:
    content, style = features(0), features(1, size=32)

    def sampled(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return local_target(content, style, "relu3_1", LocalTarget(samples=20, generator=generator))

    assert torch.equal(sampled(1), sampled(1))
    assert not torch.equal(sampled(1), sampled(2))
    # one sample is one position's value everywhere
    single = LocalTarget(samples=1, generator=torch.Generator().manual_seed(0))
    lone = local_target(content, style, "relu3_1", single)
    assert torch.equal(lone, lone[..., :1, :1].expand_as(lone))
    with pytest.raises(ValueError, match=r"a sampled local target needs a torch\.Generator"):
        local_target(content, style, "relu3_1", LocalTarget(samples=20))


# ---------------------------------------------------------------- normalize_activations


def activations(encoder: VGGEncoder, images: Tensor) -> dict[str, Tensor]:
    """Mean activation of each channel of every layer, not of the five levels alone."""
    found = {}
    x = encoder.conv0(images)
    for name, conv in encoder.layers.items():
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
        x = torch.relu(conv(x))
        found[name] = x.mean(dim=(0, 2, 3))
    return found


@torch.no_grad()
def test_mean_activations_become_1_down_to_the_floor() -> None:
    encoder, images, floor = narrow_vgg(), picture(32, 32, batch=4), 0.5
    before = activations(encoder, images)
    normalize_activations(encoder, images, floor)
    after = activations(encoder, images)
    # The first layer's input is untouched, so what is expected of it follows from `before` alone.
    layer = before["conv1_1"]
    torch.testing.assert_close(after["conv1_1"], (layer / (floor * layer.mean())).clamp(max=1), rtol=1e-5, atol=1e-6)
    for name, means in after.items():
        assert float(means.max()) == pytest.approx(1, rel=1e-5), name
    assert any(bool((means < 0.99).any()) for means in after.values()), "no channel is under the floor: a weak test"


@torch.no_grad()
def test_without_a_floor_all_means_are_1_or_0() -> None:
    encoder, images = narrow_vgg(), picture(32, 32, batch=4)
    normalize_activations(encoder, images, floor=0)
    for name, means in activations(encoder, images).items():
        ones, silent = torch.isclose(means, torch.ones(()), rtol=1e-4), means == 0
        assert bool((ones | silent).all()), f"{name}: {means}"


@torch.no_grad()
def test_the_network_is_the_same_but_for_one_factor_a_channel() -> None:
    encoder, plain = narrow_vgg(), narrow_vgg()
    normalize_activations(encoder, picture(32, 32, batch=4), floor=0.2)
    other = picture(24, 40, batch=2, seed=5)  # not the pictures it was made with
    for level, found in encoder(other).items():
        wanted = plain(other)[level]
        ratio = found.sum(dim=(0, 2, 3), keepdim=True) / wanted.sum(dim=(0, 2, 3), keepdim=True).clamp_min(1e-12)
        torch.testing.assert_close(found, wanted * ratio, rtol=1e-3, atol=1e-5)
        assert float(ratio.max()) > 2, f"{level}: hardly anything was scaled, a weak test"


@torch.no_grad()
def test_a_silent_layer_stays_finite() -> None:
    encoder = narrow_vgg()
    conv = encoder.layers["conv2_1"]
    assert isinstance(conv, ReflectConv2d) and conv.bias is not None
    conv.bias.fill_(-100)
    normalize_activations(encoder, picture(32, 32), floor=0.2)
    assert all(bool(value.isfinite().all()) for value in encoder.state_dict().values())
    assert not bool(encoder(picture(32, 32))["relu2_1"].any())


def test_mesh_loss_by_hand() -> None:
    """Steps of 1, 1, 1 and 5 within four columns are 0.5, 0.5, 0.5 and 2.5 times their mean of 2; rows are equal."""
    columns = torch.tensor([0.0, 1, 2, 3, 8, 9, 10, 11, 16]).expand(1, 3, 9, 9)
    assert float(checkerboard_loss(columns)) == pytest.approx(0.75**0.5)
    assert float(checkerboard_loss(columns.transpose(-1, -2))) == pytest.approx(0.75**0.5)
    ramp = torch.arange(9.0).expand(1, 3, 9, 9)
    assert float(checkerboard_loss(ramp)) == pytest.approx(0, abs=1e-6)
    flat = torch.full((1, 3, 9, 9), 0.5, requires_grad=True)
    checkerboard_loss(flat).backward()  # type: ignore[no-untyped-call]
    assert float(checkerboard_loss(flat.detach())) == pytest.approx(0, abs=1e-6)
    assert flat.grad is not None and bool(flat.grad.isfinite().all())


def test_mesh_loss_evens_a_mesh_out() -> None:
    mesh = picture(32, 32, seed=5) + 0.3 * (torch.arange(32) % 4 == 0)
    mesh.requires_grad_()
    checkerboard_loss(mesh).backward()  # type: ignore[no-untyped-call]
    assert mesh.grad is not None
    assert checkerboard_loss((mesh - 0.05 * mesh.grad / mesh.grad.abs().max()).detach()) < checkerboard_loss(mesh)

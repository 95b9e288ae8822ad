"""The linear start of a trained encoder."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from adaattn_core.checkpoints.model_file import fingerprint
from adaattn_core.models.attention import AdaAttention, stacked_key
from adaattn_core.models.encoder import LEVELS, VGGEncoder
from adaattn_core.models.fusion import MultiLevelFusion
from adaattn_core.runtime.distributed import DistributedContext
from adaattn_core.training import initialization
from adaattn_core.training.config import TrainConfig
from adaattn_core.training.initialization import (
    FEATURE_SIZE,
    fit_attention,
    fit_encoder,
    fit_merge,
    load_loss_network,
    representative_channels,
)
from adaattn_core.training.losses import normalize_activations


def encoder(seed: int, channels: tuple[int, ...], convs: tuple[int, ...]) -> VGGEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VGGEncoder(channels, convs).requires_grad_(False)


def pictures(count: int, seed: int) -> torch.Tensor:
    """Smooth noise, so that neighbouring positions go together as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 16, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic").clamp(0, 1)


def teacher() -> VGGEncoder:
    network = encoder(0, (6, 8, 8, 8, 8), (2, 2, 3, 2, 1))
    normalize_activations(network, pictures(8, seed=1))
    return network


def explained(
    student: VGGEncoder, wanted: VGGEncoder, adapters: torch.nn.ModuleList, images: torch.Tensor
) -> list[float]:
    """Share of each level's variance, on new pictures, that the adapters predict from the student."""
    found, targets = student(images), wanted(images)
    shares = []
    for adapter, level in zip(adapters, LEVELS, strict=True):
        error = (adapter(found[level]).detach() - targets[level]).square().mean()
        shares.append(1 - float(error / targets[level].var(dim=(0, 2, 3)).mean()))
    return shares


def test_channels_that_say_the_same_are_chosen_once() -> None:
    generator = torch.Generator().manual_seed(0)
    three = torch.randn(2, 3, 10, 10, generator=generator)
    features = torch.cat([three[:, :1], 2 * three[:, :1], three[:, 1:], three[:, :1] - three[:, 1:2]], dim=1)
    chosen = representative_channels(features, 3)
    rows = features[:, chosen].permute(1, 0, 2, 3).flatten(1)
    assert len(set(chosen.tolist())) == 3
    assert torch.linalg.matrix_rank(rows - rows.mean(dim=1, keepdim=True)) == 3


def test_a_student_of_the_teachers_shape_becomes_the_teacher() -> None:
    student, wanted = encoder(5, (6, 8, 8, 8, 8), (2, 2, 3, 2, 1)), teacher()
    adapters = fit_encoder(student, wanted, pictures(64, seed=2))
    shares = explained(student, wanted, adapters, pictures(8, seed=3))
    assert min(shares[:3]) > 0.95, shares  # not 1: the ridge, and the pictures it has never seen
    assert min(shares) > 0.8, shares  # deeper levels have fewer positions to learn from


def test_a_narrower_shorter_student_predicts_most_and_a_random_one_does_not() -> None:
    wanted, images = teacher(), pictures(8, seed=3)
    student = encoder(5, (4, 4, 6, 6, 6), (2, 2, 2, 2, 1))
    adapters = fit_encoder(student, wanted, pictures(64, seed=2))
    shares = explained(student, wanted, adapters, images)
    assert min(shares[:4]) > 0.5, shares
    shuffled = encoder(6, (4, 4, 6, 6, 6), (2, 2, 2, 2, 1))
    assert max(explained(shuffled, wanted, adapters, images)) < 0.3


def test_every_fitted_layer_gives_features_of_one_size() -> None:
    student = encoder(5, (4, 4, 6, 6, 6), (2, 2, 2, 2, 1))
    fit_encoder(student, teacher(), pictures(64, seed=2))
    sizes: list[float] = []
    for conv in student.layers.values():
        conv.register_forward_hook(lambda _m, _i, y: sizes.append(float(torch.relu(y).square().mean().sqrt())))
    student(pictures(64, seed=2))
    assert len(sizes) == 9
    assert max(sizes) / FEATURE_SIZE < 1.01 and min(sizes) / FEATURE_SIZE > 0.99, sizes


def test_fitted_attention_looks_where_the_teacher_looks() -> None:
    wanted = teacher()
    student = encoder(5, (4, 4, 6, 6, 6), (2, 2, 2, 2, 1))
    fit_encoder(student, wanted, pictures(64, seed=2))
    levels = ("relu3_1", "relu4_1", "relu5_1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        fusion = MultiLevelFusion(student.channels, levels, (6, 6, 6)).requires_grad_(False)
    content, style = pictures(4, seed=3), pictures(4, seed=4)
    before = {level: agreement(fusion, student, wanted, level, content, style) for level in levels}
    fit_attention(fusion, student, wanted, pictures(64, seed=2))
    for level in levels[:2]:
        after = agreement(fusion, student, wanted, level, content, style)
        assert after > 0.7 > 0.3 > abs(before[level]), (level, before[level], after)


def test_the_merged_levels_have_size_one() -> None:
    student = encoder(5, (4, 4, 6, 6, 6), (2, 2, 2, 2, 1))
    fit_encoder(student, teacher(), pictures(64, seed=2))
    levels = ("relu3_1", "relu4_1", "relu5_1")
    fusion = MultiLevelFusion(student.channels, levels, (6, 6, 6)).requires_grad_(False)
    fusion.merge_conv.weight.mul_(50)
    fit_merge(fusion, student, pictures(32, seed=3))
    seen = student(pictures(32, seed=4))
    assert 0.7 < float(fusion.merge({level: seen[level] for level in levels}).deep.std()) < 1.4  # on other pictures


def agreement(
    fusion: MultiLevelFusion,
    student: VGGEncoder,
    wanted: VGGEncoder,
    level: str,
    content: torch.Tensor,
    style: torch.Tensor,
) -> float:
    """Correlation between the logits of the student and those of the teacher's stacked keys."""
    attention = fusion.attention[level]
    assert isinstance(attention, AdaAttention)
    own = [
        projection(stacked_key(student(images), level)).flatten(2)
        for projection, images in ((attention.query_proj, content), (attention.key_proj, style))
    ]
    target = [stacked_key(wanted(images), level).flatten(2) for images in (content, style)]
    logits = [torch.bmm(query.transpose(1, 2), key).flatten() for query, key in (own, target)]
    return float(torch.corrcoef(torch.stack(logits))[0, 1])


@pytest.mark.parametrize("source", ["built-in", "file.pth"])
def test_the_built_in_vgg19_is_loaded_normalised_and_not_normalised_again(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, object]] = []

    def load(path: str = "built-in", *, normalized: bool = False) -> VGGEncoder:
        calls.append({"path": path, "normalized": normalized})
        return encoder(0, (6, 8, 8, 8, 8), (2, 2, 3, 2, 1))

    monkeypatch.setattr(initialization, "load_vgg", load)
    monkeypatch.setattr(initialization, "_target_crops", lambda pairs, count: pictures(count, seed=1))
    settings: dict[str, Any] = {} if source == "built-in" else {"vgg": source}
    config = TrainConfig(content="photos", style="paintings", output="run", **settings)
    pairs = cast(Any, [None] * 4)
    vgg, digest = load_loss_network(config, pairs, torch.device("cpu"), DistributedContext())
    assert calls == [{"path": source, "normalized": source == "built-in"}], "the built-in network is the default"
    assert digest == fingerprint(load())
    assert (fingerprint(vgg) == digest) == (source == "built-in")

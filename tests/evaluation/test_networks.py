"""Feature networks equal those of their authors; files of other networks are refused."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adaattn_core.errors import CheckpointError
from adaattn_core.evaluation.metric_suite import METRICS, MetricSuite
from adaattn_core.evaluation.metrics import lpips_distance
from adaattn_core.evaluation.networks import (
    LPIPS_LEVELS,
    VGG16_CHANNELS,
    VGG16_CONVS,
    VGG16_STYLE_LEVELS,
    FeatureNetworks,
    load_lpips_alex,
    load_lpips_heads,
    load_vgg16,
    package_lpips_heads,
)
from adaattn_core.models.encoder import VGGEncoder, conv_names
from tests.helpers.small_models import picture

TORCHVISION_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Of the convolutions in torchvision's vgg16().features, as printing it shows."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random ones, by our names."""
    generator, found, width = torch.Generator().manual_seed(0), {}, 3
    for name in conv_names(VGG16_CONVS):
        channels = VGG16_CHANNELS[int(name[4]) - 1]
        found[f"{name}.weight"] = torch.randn(channels, width, 3, 3, generator=generator) * (2 / 9 / width) ** 0.5
        found[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        width = channels
    return found


@pytest.fixture(scope="module")
def torchvision_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    numbers = dict(zip(conv_names(VGG16_CONVS), TORCHVISION_INDICES, strict=True))
    found = {f"features.{numbers[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in weights.items()}
    return {**found, "classifier.0.weight": torch.zeros(2, 2)}


def saved(tensors: dict[str, Tensor], folder: Path, name: str = "vgg16.safetensors") -> Path:
    save_file(tensors, folder / name)
    return folder / name


def test_vgg16_equals_that_of_torchvision(torchvision_weights: dict[str, Tensor], tmp_path: Path) -> None:
    from torchvision.models import vgg16  # type: ignore[import-untyped]

    with torch.device("meta"):
        theirs = vgg16().features
    tensors = {key.removeprefix("features."): value for key, value in torchvision_weights.items() if "feat" in key}
    theirs.load_state_dict(tensors, assign=True)
    image = picture(35, 50)
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = load_vgg16(saved(torchvision_weights, tmp_path))(image)
    places = {"relu1_2": 3, "relu2_2": 8, "relu3_1": 11, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
    assert set(found) == set(places)
    with torch.inference_mode():
        x = (image - mean) / std
        for index, layer in enumerate(theirs):
            x = layer(x)
            for level, place in places.items():
                if place == index:
                    assert torch.allclose(found[level], x, rtol=1e-4, atol=1e-5), level
                    x = x.clone()  # the next layer may work in place


def test_both_naming_schemes_of_layers_are_read(
    weights: dict[str, Tensor], torchvision_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    ours = load_vgg16(saved(weights, tmp_path, "a.safetensors")).state_dict()
    theirs = load_vgg16(saved(torchvision_weights, tmp_path, "b.safetensors")).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert len(ours) == 26


def test_a_file_of_another_network_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no VGG-16: neither features.0.weight nor conv1_1.weight"):
        load_vgg16(saved({"x": torch.zeros(1)}, tmp_path, "other.safetensors"))
    short = {key: value for key, value in weights.items() if not key.startswith("conv5_3")}
    with pytest.raises(CheckpointError, match=r"does not fit the model: layers.conv5_3.bias is missing and 1 more"):
        load_vgg16(saved(short, tmp_path, "short.safetensors"))
    with pytest.raises(CheckpointError, match="no such weights file. Check the path."):
        load_vgg16(tmp_path / "none.safetensors")


def test_vgg16_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: object, **options: object) -> dict[str, Tensor]:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models.VGG16_Weights.get_state_dict", unreachable)
    with pytest.raises(CheckpointError, match=r"VGG-16 could not be downloaded \(no route to host\). Check the conn"):
        load_vgg16("torchvision")


def test_vgg16_by_download(torchvision_weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def downloaded(self: object, **options: object) -> dict[str, Tensor]:
        asked.update(options)
        return torchvision_weights

    monkeypatch.setattr("torchvision.models.VGG16_Weights.get_state_dict", downloaded)
    network = load_vgg16("torchvision")
    assert torch.equal(network.state_dict()["layers.conv1_1.weight"], torchvision_weights["features.0.weight"])
    assert asked["check_hash"] is True


# ---------------------------------------------------------------- LPIPS


def heads_file(folder: Path, name: str = "lin{}.weight", widths: tuple[int, ...] = VGG16_CHANNELS) -> Path:
    tensors = {name.format(i): torch.full((1, width, 1, 1), i + 1.0) for i, width in enumerate(widths)}
    return saved(tensors, folder, "heads.safetensors")


@pytest.mark.parametrize("name", ["lin{}.weight", "lin{}.model.1.weight"])
def test_lpips_heads_of_either_naming(name: str, tmp_path: Path) -> None:
    heads = load_lpips_heads(heads_file(tmp_path, name))
    assert list(heads) == list(LPIPS_LEVELS)
    assert [head.shape for head in heads.values()] == [(width,) for width in VGG16_CHANNELS]
    assert [float(head[0]) for head in heads.values()] == [1, 2, 3, 4, 5]


def test_heads_of_another_network(tmp_path: Path) -> None:
    line = r"lin1 has shape \(1, 192, 1, 1\); \(1, 128, 1, 1\) is needed. Name an LPIPS head file for VGG-16."
    with pytest.raises(CheckpointError, match=line):
        load_lpips_heads(heads_file(tmp_path, widths=(64, 192, 384, 256, 256)))
    with pytest.raises(CheckpointError, match="lin0 is missing"):
        load_lpips_heads(saved({"x": torch.zeros(1)}, tmp_path))


def test_lpips_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *rest: object) -> Any:
        assert name == "lpips"
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for load in (lambda: load_lpips_alex(torch.device("cpu")), package_lpips_heads):
        with pytest.raises(CheckpointError, match="the lpips package is not installed: pip install lpips"):
            load()


class StandIn:
    """In the place of the lpips package: a network as far as we use it, or a download that fails."""

    reachable = True

    class LPIPS(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert (net, verbose) == ("alex", False)
            if not StandIn.reachable:
                raise OSError("<urlopen error no route to host>")

        def forward(self, a: Tensor, b: Tensor, normalize: bool) -> Tensor:
            assert normalize  # our pictures are in [0, 1]
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_lpips_alex_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: StandIn)
    measure = load_lpips_alex(torch.device("cpu"))
    assert measure(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5)).tolist() == [0.5, 0.5]
    monkeypatch.setattr(StandIn, "reachable", False)
    with pytest.raises(CheckpointError, match=r"AlexNet could not be downloaded \(<urlopen error no route to host>\)"):
        load_lpips_alex(torch.device("cpu"))


# ---------------------------------------------------------------- the real weights


@pytest.fixture(scope="module")
def real() -> Path:
    names = ("vgg16_conv_f16.safetensors", "lpips_vgg_linear_v01.safetensors")
    folder = Path(os.environ.get("ADAATTN_JUDGES", "not set"))
    if not all((folder / name).is_file() for name in names):
        pytest.skip(f"set ADAATTN_JUDGES to a folder with {' and '.join(names)}")
    return folder


def test_with_real_weights_a_blurred_picture_is_closer_than_another_one(real: Path) -> None:
    vgg16, heads = (
        load_vgg16(real / "vgg16_conv_f16.safetensors"),
        load_lpips_heads(real / "lpips_vgg_linear_v01.safetensors"),
    )
    image, other = picture(64, 64, seed=1), picture(64, 64, seed=9)
    soft = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    with torch.inference_mode():
        features = [vgg16(x) for x in (image, soft, other)]
        near, far = (float(lpips_distance(other, features[0], heads)) for other in features[1:])
    assert 0.05 < near < far < 1.5


# ---------------------------------------------------------------- the suite


def narrow_vgg19() -> VGGEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VGGEncoder((4, 6, 8, 10, 10), (2, 2, 2, 2, 1)).eval().requires_grad_(False)


def test_a_suite_measures_every_metric_whose_networks_it_has() -> None:
    without_vgg16 = ("style_vgg16", "gram", "cfsd", "lpips_vgg")
    without_normalized = ("patch_distance", "style_spread", "style_retrieval")
    suite = MetricSuite(FeatureNetworks(narrow_vgg19()), {"vgg16": "no file"})
    content, style = (suite.extract(picture(32, 48, seed=seed)) for seed in (1, 2))
    found = suite.score(content, content, suite.style_statistics(style)).values
    assert set(found) == set(METRICS) - {*without_vgg16, *without_normalized, "lpips_alex", "artfid"}
    assert suite.missing == {
        **dict.fromkeys(without_vgg16, "no file"), "lpips_alex": "lpips_alex was not loaded",
        **dict.fromkeys(without_normalized, "vgg19_normalized was not loaded"),
    }  # fmt: skip
    assert found["ssim"] == pytest.approx(1) and found["content"] == 0
    assert found["style_vgg19"] > 0 and found["color"] > 0
    assert suite.score(style, style, suite.style_statistics(style)).values["style_vgg19"] == 0


def test_the_identity_of_a_suite_changes_with_its_networks_and_metrics() -> None:
    suite, other = (MetricSuite(FeatureNetworks(narrow_vgg19())) for _ in range(2))
    assert suite.identity() == other.identity()
    next(iter(other.networks.vgg19.parameters())).add_(0.1)
    assert suite.identity() != other.identity()
    other = MetricSuite(FeatureNetworks(narrow_vgg19()), {"ssim": "not wanted"})
    assert suite.identity() != other.identity()
    other = MetricSuite(FeatureNetworks(narrow_vgg19(), vgg19_normalized=narrow_vgg19()))
    without = MetricSuite(other.networks, {"patch_distance": "not wanted"})
    assert len({suite.identity(), other.identity(), without.identity()}) == 3


def test_every_style_level_of_vgg16_is_one_of_lpips() -> None:
    assert set(VGG16_STYLE_LEVELS) < set(LPIPS_LEVELS)
    assert all(metric.about and metric.title for metric in METRICS.values())

"""Other people's files: each layout of VGG-19 computes what its preprocessing and names mean; the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaattn_core import CheckpointError, convert_published, load_vgg
from adaattn_core.models.encoder import LEVELS, VGGEncoder
from tests.helpers.golden_oracle import state_dict
from tests.helpers.small_models import picture

Convs = list[tuple[Tensor, Tensor]]
"""Weight and bias of conv1_1, conv1_2, conv2_1, ..., conv5_1."""

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512)
NAMES = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "3_4", "4_1", "4_2", "4_3", "4_4", "5_1")
PUBLISHED = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42)
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
POOLED = (2, 4, 8, 12)
"""Convolutions before which a pool stands."""
LEVEL_CONVS = (0, 2, 4, 8, 12)


@pytest.fixture(scope="module")
def convs() -> Convs:
    """Random weights that keep activations of order one, stored in half precision, which is read as well."""
    generator, found, inputs = torch.Generator().manual_seed(0), [], 3
    for width in WIDTHS:
        weight = torch.randn(width, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        found.append((weight.half(), 0.1 * torch.randn(width, generator=generator).half()))
        inputs = width
    return found


def plain_features(x: Tensor, convs: Convs, scales: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
    """VGG-19 on a preprocessed picture, written out; `scales` multiply each level's channels."""
    levels = {}
    for index, (weight, bias) in enumerate(convs):
        if index in POOLED:
            x = F.max_pool2d(x, 2, ceil_mode=True)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight.float(), bias.float()).relu()
        if index in LEVEL_CONVS:
            levels[f"relu{NAMES[index]}"] = x if scales is None else x * scales[index].float()[:, None, None]
    return levels


def check(encoder: VGGEncoder, expected: dict[str, Tensor], images: Tensor) -> None:
    features = encoder(images)
    assert tuple(features) == LEVELS
    for level in LEVELS:
        error = (features[level] - expected[level]).norm() / expected[level].norm()
        assert error < 1e-4, f"{level}: relative error {error:.2g}"  # float32 rounding through 13 convolutions


def save(tensors: dict[str, Tensor], folder: Path) -> Path:
    torch.save(tensors, folder / "vgg.pth")
    return folder / "vgg.pth"


def bgr(images: Tensor) -> Tensor:
    """RGB in [0, 1] as caffe wants it."""
    return 255 * images.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]


IMAGES = picture(32, 34)


# ---------------------------------------------------------------- layouts of VGG-19


def test_published_sequential(convs: Convs, tmp_path: Path) -> None:
    """Key 0 is the preprocessing; convolutions past conv5_1 are in the file and not needed."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(3, 3, 1, 1, generator=generator), torch.randn(3, generator=generator)
    tensors = {
        "0.weight": first[0],
        "0.bias": first[1],
        "45.weight": torch.zeros(512, 512, 3, 3),
        "45.bias": torch.zeros(512),
    }
    for index, (weight, bias) in zip(PUBLISHED, convs, strict=True):
        tensors |= {f"{index}.weight": weight, f"{index}.bias": bias}
    check(load_vgg(save(tensors, tmp_path)), plain_features(F.conv2d(IMAGES, *first), convs), IMAGES)


def torchvision_file(convs: Convs) -> dict[str, Tensor]:
    tensors = {"classifier.0.weight": torch.zeros(4, 4), "features.30.weight": torch.zeros(512, 512, 3, 3)}
    for index, (weight, bias) in zip(TORCHVISION, convs, strict=True):
        tensors |= {f"features.{index}.weight": weight, f"features.{index}.bias": bias}
    return tensors


def test_torchvision(convs: Convs, tmp_path: Path) -> None:
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    check(load_vgg(save(torchvision_file(convs), tmp_path)), plain_features((IMAGES - mean) / std, convs), IMAGES)


def caffe_file(convs: Convs) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, (weight, bias) in zip(NAMES, convs, strict=True):
        tensors |= {f"conv{name}.weight": weight, f"conv{name}.bias": bias}
    return tensors


def test_caffe_names(convs: Convs, tmp_path: Path) -> None:
    check(load_vgg(save(caffe_file(convs), tmp_path)), plain_features(bgr(IMAGES), convs), IMAGES)


def test_caffe_names_with_preprocessing(convs: Convs, tmp_path: Path) -> None:
    first = torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, 0.2, 0.3])
    tensors = {**caffe_file(convs), "conv0.weight": first[0], "conv0.bias": first[1]}
    check(load_vgg(save(tensors, tmp_path)), plain_features(F.conv2d(IMAGES, *first), convs), IMAGES)


def test_caffe_names_with_mean_activations(convs: Convs, tmp_path: Path) -> None:
    """The file's network gives activations divided by their mean; multiplied by it they are those of VGG-19."""
    generator = torch.Generator().manual_seed(1)
    scales = [0.5 + torch.rand(width, generator=generator) for width in WIDTHS]
    tensors = caffe_file(convs) | {f"conv{name}.mean_activation": x for name, x in zip(NAMES, scales, strict=True)}
    check(load_vgg(save(tensors, tmp_path)), plain_features(bgr(IMAGES), convs, scales), IMAGES)


# ---------------------------------------------------------------- files that hold no VGG-19


def refused(call: Callable[[], object], text: str) -> None:
    """The call ends in a CheckpointError of one line that matches `text` from end to end."""
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert re.fullmatch(text, message), message


def test_a_file_without_any_known_key(tmp_path: Path) -> None:
    text = r".*vgg\.pth holds no VGG-19: none of the keys 0\.weight, features\.0\.weight, conv1_1\.weight is in it\."
    refused(lambda: load_vgg(save({"weight": torch.zeros(1)}, tmp_path)), text)


def test_vgg16_of_torchvision(tmp_path: Path, convs: Convs) -> None:
    """Three convolutions in its third block: nothing at 16, where VGG-19's conv3_4 is."""
    tensors = {key: value for key, value in torchvision_file(convs).items() if not key.startswith("features.16.")}
    text = r".*vgg\.pth does not fit the model: layers\.conv3_4\.bias is missing and 1 more\. Is it the right file\?"
    refused(lambda: load_vgg(save(tensors, tmp_path)), text)


def test_a_published_file_that_stops_early(tmp_path: Path, convs: Convs) -> None:
    tensors = {"0.weight": torch.zeros(3, 3, 1, 1), "0.bias": torch.zeros(3)}
    for index, (weight, bias) in zip(PUBLISHED[:-1], convs, strict=False):
        tensors |= {f"{index}.weight": weight, f"{index}.bias": bias}
    text = r".* does not fit the model: layers\.conv5_1\.bias is missing and 1 more\. Is it the right file\?"
    refused(lambda: load_vgg(save(tensors, tmp_path)), text)


def test_a_convolution_of_another_width(tmp_path: Path, convs: Convs) -> None:
    tensors = {**torchvision_file(convs), "features.28.bias": torch.zeros(7)}
    text = r".*: layers\.conv5_1\.bias has shape \(7,\) instead of \(512,\)\. Is it the right file\?"
    refused(lambda: load_vgg(save(tensors, tmp_path)), text)


def test_caffe_names_with_one_missing(tmp_path: Path, convs: Convs) -> None:
    tensors = caffe_file(convs)
    del tensors["conv4_2.bias"]
    text = r"the VGG-19 file has no conv4_2; all convolutions up to conv5_1 are needed\."
    refused(lambda: load_vgg(save(tensors, tmp_path)), text)


# ---------------------------------------------------------------- the download


def replace_download(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], dict[str, Tensor]]) -> None:
    def get_state_dict(self: object, **options: Any) -> dict[str, Tensor]:
        assert options == {"progress": False, "check_hash": True}
        return answer()

    monkeypatch.setattr("torchvision.models.VGG19_Weights.get_state_dict", get_state_dict)


def test_torchvisions_download(monkeypatch: pytest.MonkeyPatch, convs: Convs, tmp_path: Path) -> None:
    replace_download(monkeypatch, lambda: torchvision_file(convs))
    wanted = load_vgg(save(torchvision_file(convs), tmp_path)).state_dict()
    found = load_vgg("torchvision").state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("Name or service not known"), "<urlopen error Name or service not known>"),
        (TimeoutError("timed out"), "timed out"),
        (RuntimeError('invalid hash value (expected "dcbb9e9d", got "00")'), r"invalid hash value .*"),
    ],
)
def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def fail() -> dict[str, Tensor]:
        raise error

    replace_download(monkeypatch, fail)
    text = rf"VGG-19 could not be downloaded \({reason}\)\. Check the connection, or name a local file instead\."
    refused(lambda: load_vgg("torchvision"), text)


# ---------------------------------------------------------------- published checkpoints that are not right


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy of the image layout that a test may spoil: its files are links."""
    for source in (published / "AdaAttN").iterdir():
        (tmp_path / source.name).hardlink_to(source)
    return tmp_path


def replace(path: Path, tensors: dict[str, Tensor]) -> None:
    """Another file in the place of a link; what it links to stays."""
    path.unlink()
    torch.save(tensors, path)


def convert(folder: Path, published: Path) -> Callable[[], object]:
    return lambda: convert_published(folder, published / "vgg_normalised.pth")


def test_no_folder(tmp_path: Path) -> None:
    text = (r".*nowhere: no such folder\. Name the folder that holds latest_net_transformer\.pth and "
            r"latest_net_decoder\.pth\.")  # fmt: skip
    refused(convert(tmp_path / "nowhere", tmp_path), text)


@pytest.mark.parametrize("name", ["latest_net_transformer.pth", "latest_net_decoder.pth"])
def test_a_file_is_missing(folder: Path, published: Path, name: str) -> None:
    (folder / name).unlink()
    refused(convert(folder, published), rf".*{name}: no such weights file\. Check the path\.")


def test_the_encoder_is_missing(folder: Path) -> None:
    refused(convert(folder, folder), r".*vgg_normalised\.pth: no such weights file\. Check the path\.")


def test_the_shallow_attention_is_missing(folder: Path, published: Path) -> None:
    (folder / "latest_net_adaattn_3.pth").unlink()
    text = (r".* holds neither latest_net_adaattn_3\.pth nor latest_net_attn_adain_3\.pth; "
            r"the image model needs one of them\.")  # fmt: skip
    refused(convert(folder, published), text)


def test_an_unknown_transformer(folder: Path, published: Path) -> None:
    replace(folder / "latest_net_transformer.pth", {"weight": torch.zeros(1)})
    text = r".*latest_net_transformer\.pth is of no published layout: no f\.weight and no attn_adain_4_1\.f\.weight\."
    refused(convert(folder, published), text)


def test_a_key_too_many(folder: Path, published: Path) -> None:
    replace(folder / "latest_net_adaattn_3.pth", {**state_dict("adaattn_3"), "sm.weight": torch.zeros(1)})
    text = r".*latest_net_adaattn_3\.pth holds sm\.weight, which no published layout has\. Is it the right file\?"
    refused(convert(folder, published), text)


def test_a_key_too_few(folder: Path, published: Path) -> None:
    tensors = state_dict("adaattn_3")
    del tensors["g.bias"]
    replace(folder / "latest_net_adaattn_3.pth", tensors)
    text = r".* does not fit the model: fusion\.attention\.relu3_1\.key_proj\.bias is missing\. Is it the right file\?"
    refused(convert(folder, published), text)


def test_the_decoder_of_the_other_model(folder: Path, published: Path) -> None:
    (folder / "latest_net_decoder.pth").unlink()
    (folder / "latest_net_decoder.pth").hardlink_to(published / "attn_adain_video" / "latest_net_decoder.pth")
    text = r".*latest_net_decoder\.pth holds decoder\.1\.weight, which no published layout has\. Is it the right file\?"
    refused(convert(folder, published), text)


def test_a_damaged_file(folder: Path, published: Path) -> None:
    data = (folder / "latest_net_decoder.pth").read_bytes()
    (folder / "latest_net_decoder.pth").unlink()
    (folder / "latest_net_decoder.pth").write_bytes(data[: len(data) // 2])
    refused(
        convert(folder, published),
        r".*latest_net_decoder\.pth is truncated or not a weights file\. Download it again\.",
    )


def test_converting_leaves_the_files_and_the_global_generator_alone(folder: Path, published: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    state = torch.random.get_rng_state()
    convert(folder, published)()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

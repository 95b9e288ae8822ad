"""TODO"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..models.encoder import VGG19_CONVS, VGGEncoder, conv_names
from .hub import torchvision_tensors
from .model_file import WEIGHTS_FOLDER, load_strict, read_tensors

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)

BUILT_IN_VGG = "built-in"
VGG_FILE = WEIGHTS_FOLDER / "vgg19.safetensors"
"""VGG-19 with normalised channels, float16; its licence and origin stand beside it."""

# VGG-19 files


def load_vgg(source: str | Path = BUILT_IN_VGG, *, normalized: bool = False) -> VGGEncoder:
    """A full-size VGG-19 encoder: the built-in one, or any of the usual files, told apart by their keys.

    * `vgg_normalised.pth` of AdaIN and AdaAttN: `0.weight`, `2.weight`, ... (preprocessing is its first layer);
    * torchvision's vgg19: `features.0.weight`, ... (RGB, ImageNet mean and deviation);
    * caffe names `conv1_1.weight`, ... (BGR 0..255 minus the mean), with or without a preprocessing `conv0`;
      `conv1_1.mean_activation`, ..., when present, undoes a per-channel normalisation.

    Args:
        source: "built-in"; a .pth or .safetensors file; or "torchvision" to download torchvision's (hash-checked,
            cached).
        normalized: keep the channels of a file with `mean_activation` tensors, such as the built-in one, rescaled to a
            mean activation of 1, instead of undoing it.

    Raises:
        CheckpointError: a file that holds no VGG-19.
    """
    if str(source) == "torchvision":
        tensors = _torchvision_vgg()
    else:
        tensors = read_tensors(VGG_FILE if str(source) == BUILT_IN_VGG else source)
    if normalized:
        tensors = {name: value for name, value in tensors.items() if not name.endswith(".mean_activation")}
    with torch.device("meta"):  # nothing is drawn from the global generator
        encoder = VGGEncoder()
    load_strict(encoder, _canonical_vgg(tensors, str(source)), str(source))
    return encoder


def _torchvision_vgg() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights  # type: ignore[import-untyped]  # imported late: it takes a second, and only this needs it

    return torchvision_tensors(VGG19_Weights.IMAGENET1K_V1, "VGG-19")


def _canonical_vgg(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    names = conv_names(VGG19_CONVS)
    if "0.weight" in tensors:
        table = dict(zip(published_indices(), ["conv0", *names], strict=True))
        deepest = max(table)
        found = {
            f"{table[int(key.split('.')[0])]}.{key.split('.')[1]}": value
            for key, value in tensors.items()
            if re.fullmatch(r"\d+\.(weight|bias)", key)
            and int(key.split(".")[0]) in table
            and int(key.split(".")[0]) <= deepest
        }
    elif "features.0.weight" in tensors:
        table = dict(zip((index - 2 for index in _torchvision_indices()), names, strict=True))
        found = {
            f"{table[index]}.{part}": tensors[f"features.{index}.{part}"]
            for index in table
            for part in ("weight", "bias")
            if f"features.{index}.{part}" in tensors
        }
        found |= _rgb_preprocessing()
    elif "conv1_1.weight" in tensors:
        found = _undo_normalisation(tensors, names)
        if "conv0.weight" not in found:
            found |= _caffe_preprocessing()
    else:
        raise CheckpointError(
            f"{source} holds no VGG-19: none of the keys 0.weight, features.0.weight, conv1_1.weight is in it."
        )
    return {(key if key.startswith("conv0.") else f"layers.{key}"): value.float() for key, value in found.items()}


def published_indices() -> list[int]:
    """Index of each convolution in vgg_normalised.pth: pads, ReLUs and pools take up indices too."""
    indices, index = [0], 1
    for count in VGG19_CONVS:
        for _ in range(count):
            indices.append(index + 1)
            index += 3
        index += 1
    return indices


def _torchvision_indices() -> list[int]:
    """Index + 2 of each convolution in torchvision's `features` (convolution, ReLU; a pool after each block)."""
    indices, index = [], 2
    for count in VGG19_CONVS:
        for _ in range(count):
            indices.append(index)
            index += 2
        index += 1
    return indices


def _undo_normalisation(tensors: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """Weights of the network whose channels are not rescaled; unchanged without `mean_activation` tensors."""
    found = {}
    scale_in: Tensor | float = 1.0
    for name in names:
        if f"{name}.weight" not in tensors or f"{name}.bias" not in tensors:
            raise CheckpointError(f"the VGG-19 file has no {name}; all convolutions up to conv5_1 are needed.")
        scale_out = tensors.get(f"{name}.mean_activation", torch.ones(())).float()
        weight = tensors[f"{name}.weight"].float() / scale_in
        found[f"{name}.weight"] = weight * scale_out.reshape(-1, 1, 1, 1)
        found[f"{name}.bias"] = tensors[f"{name}.bias"].float() * scale_out
        scale_in = scale_out.reshape(1, -1, 1, 1)
    return found | {key: tensors[key] for key in ("conv0.weight", "conv0.bias") if key in tensors}


def _rgb_preprocessing() -> dict[str, Tensor]:
    """conv0 for torchvision's input: (RGB - mean) / deviation."""
    std = torch.tensor(IMAGENET_STD_RGB)
    return {
        "conv0.weight": torch.diag(1 / std).reshape(3, 3, 1, 1),
        "conv0.bias": -torch.tensor(IMAGENET_MEAN_RGB) / std,
    }


def _caffe_preprocessing() -> dict[str, Tensor]:
    """conv0 for caffe's input: BGR 0..255 minus the mean."""
    weight = 255 * torch.eye(3).flip(0).reshape(3, 3, 1, 1)
    return {"conv0.weight": weight, "conv0.bias": -torch.tensor(CAFFE_MEAN_BGR)}

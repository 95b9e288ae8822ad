"""VGG-19 encoders from the layouts in which its weights are distributed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..models.encoder import VGG19_CONVS, VGGEncoder, conv_names
from .hub import torchvision_tensors
from .model_file import VGG_FILE, check_shapes, load_strict
from .tensor_file import checked_float32, read_tensors

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)

BUILT_IN_VGG = "built-in"
PARTS = ("weight", "bias")


def load_vgg(source: str | Path = BUILT_IN_VGG, *, normalized: bool = False) -> VGGEncoder:
    """A full-size VGG-19 encoder, built in or from a file, whose layout is recognised by its keys:

    * `vgg_normalised.pth` of AdaIN and AdaAttN: `0.weight`, `2.weight`, ... (the first layer is the preprocessing);
    * torchvision's vgg19: `features.0.weight`, ... (RGB, ImageNet mean and standard deviation);
    * caffe names: `conv1_1.weight`, ... (BGR in 0..255 minus the mean), with or without a preprocessing `conv0`.
      `conv1_1.mean_activation`, ..., if present, reverses a per-channel normalisation.

    Args:
        source: "built-in"; a .pth or .safetensors file; or "torchvision" to download torchvision's weights (cached).
        normalized: keep the channels of a file with `mean_activation` tensors, such as the built-in one, rescaled to a
            mean activation of 1.

    Raises:
        CheckpointError: no VGG-19 in the file, or a failed download.
    """
    if str(source) == "torchvision":
        tensors = _torchvision_vgg()
    else:
        tensors = read_tensors(VGG_FILE if str(source) == BUILT_IN_VGG else source)
    if normalized:
        tensors = {name: value for name, value in tensors.items() if not name.endswith(".mean_activation")}
    with torch.device("meta"):  # no draw from the global generator
        encoder = VGGEncoder()
    convs = _encoder_tensors(tensors, str(source))
    check_shapes(encoder, convs, str(source))
    if "conv1_1.weight" in tensors:
        convs |= _undo_normalisation(convs, tensors, str(source))
    load_strict(encoder, convs, str(source))
    return encoder


def _torchvision_vgg() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights  # type: ignore[import-untyped]  # imported late: it takes a second, and only this needs it

    return torchvision_tensors(VGG19_Weights.IMAGENET1K_V1, "VGG-19")


def _encoder_tensors(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state dict of `VGGEncoder` from the tensors of a file; a per-channel normalisation is still in it."""
    names = conv_names(VGG19_CONVS)
    if "0.weight" in tensors:
        convs = _select(tensors, map(str, published_indices()), ["conv0", *names])
    elif "features.0.weight" in tensors:
        convs = _select(tensors, (f"features.{index}" for index in _torchvision_indices()), names)
        convs |= _rgb_preprocessing()
    elif "conv1_1.weight" in tensors:
        convs = _select(tensors, ["conv0", *names], ["conv0", *names])
        for name in names:
            if f"{name}.weight" not in tensors or f"{name}.bias" not in tensors:
                raise CheckpointError(f"the VGG-19 file has no {name}; all convolutions up to conv5_1 are needed.")
        if "conv0.weight" not in convs:
            convs |= _caffe_preprocessing()
    else:
        raise CheckpointError(
            f"{source} holds no VGG-19: none of the keys 0.weight, features.0.weight, conv1_1.weight is in it."
        )
    return {(key if key.startswith("conv0.") else f"layers.{key}"): value for key, value in convs.items()}


def _select(tensors: Mapping[str, Tensor], layers: Iterable[str], names: Sequence[str]) -> dict[str, Tensor]:
    """Weight and bias of the named layers of a file, as far as it has them, under the encoder's `names`."""
    return {
        f"{name}.{part}": tensors[f"{layer}.{part}"]
        for layer, name in zip(layers, names, strict=True)
        for part in PARTS
        if f"{layer}.{part}" in tensors
    }


def published_indices() -> list[int]:
    """Index of each convolution in vgg_normalised.pth, where pads, ReLUs and pools have indices too."""
    indices, index = [0], 1
    for count in VGG19_CONVS:
        for _ in range(count):
            indices.append(index + 1)
            index += 3
        index += 1
    return indices


def _torchvision_indices() -> list[int]:
    """Index of each convolution in torchvision's `features`: a ReLU after each, a pool after each block."""
    indices, index = [], 0
    for count in VGG19_CONVS:
        for _ in range(count):
            indices.append(index)
            index += 2
        index += 1
    return indices


def _undo_normalisation(convs: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights of the network without its per-channel rescaling; unchanged without `mean_activation` tensors.

    Args:
        convs: the state dict of `VGGEncoder`, of the right shapes.
        tensors: all of the file.
        source: of the tensors, for error messages.

    Raises:
        CheckpointError: tensors of another shape or type, or with NaN or infinity.
    """
    output = {}
    scale_in = torch.ones((), dtype=torch.float32)
    for name in conv_names(VGG19_CONVS):
        weight, bias = (checked_float32(convs[f"layers.{name}.{part}"], f"{name}.{part}", source) for part in PARTS)
        scale_out = _mean_activation(tensors, name, len(bias), source)
        output[f"layers.{name}.weight"] = weight / scale_in * scale_out.reshape(-1, 1, 1, 1)
        output[f"layers.{name}.bias"] = bias * scale_out
        scale_in = scale_out.reshape(1, -1, 1, 1)
    return output


def _mean_activation(tensors: Mapping[str, Tensor], conv: str, channels: int, source: str) -> Tensor:
    """Factor of each channel of a convolution: (channels,), ones where the file has none."""
    name = f"{conv}.mean_activation"
    if name not in tensors:
        return torch.ones(channels, dtype=torch.float32)
    if tensors[name].shape != (channels,):
        shape = tuple(tensors[name].shape)
        raise CheckpointError(f"{source}: {name} has shape {shape} instead of ({channels},). Is it the right file?")
    return checked_float32(tensors[name], name, source)


def _rgb_preprocessing() -> dict[str, Tensor]:
    """conv0 for torchvision's weights: (RGB - mean) / standard deviation."""
    std = torch.tensor(IMAGENET_STD_RGB, dtype=torch.float32)
    return {
        "conv0.weight": torch.diag(1 / std).reshape(3, 3, 1, 1),
        "conv0.bias": -torch.tensor(IMAGENET_MEAN_RGB, dtype=torch.float32) / std,
    }


def _caffe_preprocessing() -> dict[str, Tensor]:
    """conv0 for caffe's weights: BGR in 0..255 minus the mean."""
    weight = 255 * torch.eye(3, dtype=torch.float32).flip(0).reshape(3, 3, 1, 1)
    return {"conv0.weight": weight, "conv0.bias": -torch.tensor(CAFFE_MEAN_BGR, dtype=torch.float32)}

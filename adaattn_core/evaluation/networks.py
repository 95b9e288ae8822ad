"""Feature networks of the metrics: VGG-16, LPIPS and ArtFID beside VGG-19 (`checkpoints.vgg`). Loaded, never trained.

Letters: B batch, C channels, H W rows and columns of a level's grid.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Conv2d

from ..checkpoints.hub import torchvision_tensors
from ..checkpoints.model_file import load_strict
from ..checkpoints.tensor_file import checked_float32, read_tensors
from ..checkpoints.vgg import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from ..errors import AdaAttNError, CheckpointError
from ..io.files import TEMPORARY, folder_in_use
from ..io.images import save_image
from ..models.encoder import Features, VGGEncoder, check_images, conv_names

VGG16_CHANNELS, VGG16_CONVS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
VGG16_STYLE_LEVELS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
LPIPS_LEVELS = (*VGG16_STYLE_LEVELS, "relu5_3")

NO_LPIPS = "the lpips package is not installed: pip install lpips"

Network = TypeVar("Network", bound=nn.Module)
NetworkName = Literal["vgg19", "vgg16", "lpips_heads", "lpips_alex", "vgg19_normalized"]
"""Fields of `FeatureNetworks`."""


class ArtFIDError(AdaAttNError):
    """ArtFID cannot be computed; one line says why."""


class VGG16(nn.Module):
    """VGG-16 up to relu5_3 as torchvision runs it: zero padding, pools that round down, ImageNet preprocessing inside.

    Source: Simonyan & Zisserman, arXiv:1409.1556, configuration D.

    Args:
        channels: width of each of the five blocks.
    """

    def __init__(self, channels: Sequence[int] = VGG16_CHANNELS) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        width = 3
        for name in conv_names(VGG16_CONVS):
            block_width = channels[int(name[4]) - 1]
            self.layers[name] = Conv2d(width, block_width, kernel_size=3, padding=1)
            width = block_width

    def forward(self, images: Tensor) -> Features:
        """(B, 3, H, W) RGB in [0, 1], at least 16 pixels a side -> every level of LPIPS_LEVELS and relu3_1."""
        check_images(images)
        mean, std = (images.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN_RGB, IMAGENET_STD_RGB))
        x = (images - mean) / std
        features: Features = {}
        for name, conv in self.layers.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            x = torch.relu(conv(x))
            level = name.replace("conv", "relu")
            if level in LPIPS_LEVELS or level == "relu3_1":
                features[level] = x
        return features


@dataclass(frozen=True)
class FeatureNetworks:
    """The networks that metrics compute on; a metric whose network is None is left out.

    Args:
        vgg19: from `checkpoints.vgg.load_vgg`.
        vgg16: from `load_vgg16`.
        lpips_heads: from `load_lpips_heads`; they are used with vgg16.
        lpips_alex: (picture, reference) -> (1,), both in [0, 1]; see `load_lpips_alex`.
        vgg19_normalized: the built-in VGG-19 with normalised channels, `load_vgg(normalized=True)`.
    """

    vgg19: VGGEncoder
    vgg16: VGG16 | None = None
    lpips_heads: Mapping[str, Tensor] | None = None
    lpips_alex: Callable[[Tensor, Tensor], Tensor] | None = None
    vgg19_normalized: VGGEncoder | None = None


def load_vgg16(source: str | Path) -> VGG16:
    """VGG-16 from torchvision's file (keys `features.0.weight`, ...) or one with keys `conv1_1.weight`, ...

    Both layouts expect RGB normalised by ImageNet's mean and standard deviation.

    Args:
        source: a .pth or .safetensors file, or "torchvision" to download torchvision's (hash-checked, cached).

    Raises:
        CheckpointError: a file that holds no VGG-16, or no connection.
    """
    tensors = _torchvision_vgg16() if str(source) == "torchvision" else read_tensors(source)
    names = conv_names(VGG16_CONVS)
    if "features.0.weight" in tensors:
        table = {
            f"features.{index}.{part}": f"{name}.{part}"
            for index, name in zip(_torchvision_indices(), names, strict=True)
            for part in ("weight", "bias")
        }
        tensors = {table[key]: value for key, value in tensors.items() if key in table}
    elif "conv1_1.weight" not in tensors:
        raise CheckpointError(f"{source} holds no VGG-16: neither features.0.weight nor conv1_1.weight is in it.")
    with torch.device("meta"):  # initialisation draws nothing from the global generator
        network = VGG16()
    load_strict(network, {f"layers.{key}": value for key, value in tensors.items()}, str(source))
    return network


def _torchvision_vgg16() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights  # type: ignore[import-untyped]  # imported late: it takes a second

    return torchvision_tensors(VGG16_Weights.IMAGENET1K_V1, "VGG-16")


def _torchvision_indices() -> list[int]:
    """Index of each convolution in torchvision's `features`: convolution, ReLU; a pool after each block."""
    indices: list[int] = []
    index = 0
    for count in VGG16_CONVS:
        indices += range(index, index + 2 * count, 2)
        index += 2 * count + 1
    return indices


def load_lpips_heads(source: str | Path) -> dict[str, Tensor]:
    """Weight of each channel of each level, from an LPIPS v0.1 head file for VGG-16 -> level name -> (C,).

    Keys are `lin0.weight` or, in the `lpips` package's own file, `lin0.model.1.weight`; shapes (1, C, 1, 1).

    Raises:
        CheckpointError: a file that holds no such heads.
    """
    tensors = read_tensors(source)
    heads = {}
    for index, level in enumerate(LPIPS_LEVELS):
        channels = VGG16_CHANNELS[int(level[4]) - 1]
        head = _head(tensors, index)
        if head is None or head.shape != (1, channels, 1, 1):
            problem = "is missing" if head is None else f"has shape {tuple(head.shape)}"
            raise CheckpointError(
                f"{source}: lin{index} {problem}; (1, {channels}, 1, 1) is needed. Name an LPIPS head file for VGG-16."
            )
        heads[level] = checked_float32(head, f"lin{index}", str(source)).flatten()
    return heads


def _head(tensors: Mapping[str, Tensor], index: int) -> Tensor | None:
    for key in (f"lin{index}.weight", f"lin{index}.model.1.weight"):
        if key in tensors:
            return tensors[key]
    return None


def prepare_network(network: Network, device: torch.device) -> Network:
    """The network on its device, in the memory format that convolutions are fastest in, without gradients."""
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return network.eval().requires_grad_(False)


def package_lpips_heads() -> dict[str, Tensor]:
    """The LPIPS heads for VGG-16 inside the `lpips` package.

    Raises:
        CheckpointError: the package is not installed, or its head file has another layout.
    """
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise CheckpointError(NO_LPIPS)
    return load_lpips_heads(Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth")


def load_lpips_alex(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS on AlexNet, computed by the `lpips` package: (picture, reference) in [0, 1] -> (B,).

    Torchvision downloads AlexNet (233 MB) the first time and caches it.

    Raises:
        CheckpointError: the package is not installed, or there is no connection.
    """
    try:
        package = importlib.import_module("lpips")  # imported late: it belongs to the extra [eval]
    except ImportError as error:
        raise CheckpointError(NO_LPIPS) from error
    try:
        network = package.LPIPS(net="alex", verbose=False)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"AlexNet could not be downloaded ({' '.join(str(error).split())})") from error
    network = network.to(device).eval().requires_grad_(False)
    return lambda picture, reference: network(picture, reference, normalize=True).flatten()


def art_fid(pictures: Iterable[tuple[Tensor, Tensor, Tensor]], folder: Path, device: str) -> float:
    """(1 + LPIPS to the contents) (1 + FID to the styles) of all pictures together, computed by the `art-fid` package.

    Source: Wright & Ommer, "ArtFID: Quantitative Evaluation of Neural Style Transfer", GCPR 2022.

    Args:
        pictures: stylised, content and style picture of each pair, (1, 3, H, W) each, in [0, 1].
        folder: where the pictures are written as temporary files, because the package reads only files.
        device: "cpu" or "cuda".

    Raises:
        ArtFIDError: the package is not installed, or its weights cannot be downloaded.
    """
    try:
        package = importlib.import_module("art_fid.art_fid")
    except ImportError as error:
        raise ArtFIDError(f"its package cannot be imported ({error}): pip install art-fid") from error
    prefix = f"{TEMPORARY}artfid-"
    with folder_in_use(folder), tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as temporary:
        stylized_folder, style_folder, content_folder = (
            Path(temporary, name) for name in ("stylized", "style", "content")
        )
        for path in (stylized_folder, style_folder, content_folder):
            path.mkdir()
        for index, (stylized, content, style) in enumerate(pictures):
            save_image(stylized, stylized_folder / f"{index:06d}.png")
            save_image(content, content_folder / f"{index:06d}.png")
            save_image(style, style_folder / f"{index:06d}.png")
        folders = map(str, (stylized_folder, style_folder, content_folder))
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return float(package.compute_art_fid(*folders, batch_size=1, device=device, mode="art_fid"))
        except (OSError, RuntimeError, ValueError) as error:  # no connection, a cut download, too few pictures
            raise ArtFIDError(f"the art-fid package failed ({' '.join(str(error).split())[:200]})") from error

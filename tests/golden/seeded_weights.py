"""Weights for tests, in the layouts of the published checkpoints, rebuilt from the names of their tensors.

The oracle beside this file was computed with these very values, so 146 MB need not be stored: each tensor comes
from a generator seeded with the CRC-32 of `<prefix>.<key>` and depends on nothing else.

    python tests/golden/seeded_weights.py FOLDER      writes the files under their published names
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FILES = {
    "vgg": "vgg_normalised.pth",
    "adaattn_3": "AdaAttN/latest_net_adaattn_3.pth",
    "transformer": "AdaAttN/latest_net_transformer.pth",
    "decoder": "AdaAttN/latest_net_decoder.pth",
    "video.transformer": "attn_adain_video/latest_net_transformer.pth",
    "video.decoder": "attn_adain_video/latest_net_decoder.pth",
}
"""Prefix of each state dict -> the file it is published in."""

Conv = tuple[str, int, int, int]
"""One convolution: name, output channels, input channels, kernel size."""

VGG_WIDTHS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions of each block; the published file goes to relu5_4, past what AdaAttN reads."""
DECODER_TAIL = ((4, 256, 256), (7, 256, 256), (10, 128, 256), (14, 128, 128), (17, 64, 128), (21, 64, 64), (24, 3, 64))
"""Sequential index, output and input channels: common to the image and the video decoder."""


def vgg_convs() -> Iterator[Conv]:
    """A Sequential of conv 1x1, then pad, conv, ReLU for each convolution, with a pool between blocks."""
    yield "0", 3, 3, 1
    index, inputs = 2, 3
    for width, count in VGG_WIDTHS:
        for _ in range(count):
            yield str(index), width, inputs, 3
            index, inputs = index + 3, width
        index += 1


def attention_convs(prefix: str, key_channels: int, value_channels: int) -> Iterator[Conv]:
    """The three 1x1 convolutions of one AdaAttN."""
    for name, channels in (("f", key_channels), ("g", key_channels), ("h", value_channels)):
        yield prefix + name, channels, channels, 1


def decoder_convs(prefix: str, convs: Sequence[tuple[int, int, int]]) -> Iterator[Conv]:
    """3x3 convolutions of one Sequential."""
    for index, outputs, inputs in convs:
        yield f"{prefix}.{index}", outputs, inputs, 3


def layout(prefix: str) -> Iterator[Conv]:
    """Convolutions of one published file, in its order."""
    match prefix:
        case "vgg":
            yield from vgg_convs()
        case "adaattn_3" | "video.transformer":
            yield from attention_convs("", 448, 256)
        case "transformer":
            yield from attention_convs("attn_adain_4_1.", 960, 512)
            yield from attention_convs("attn_adain_5_1.", 1472, 512)
            yield "merge_conv", 512, 512, 3
        case "decoder":
            yield from decoder_convs("decoder_layer_1", [(1, 256, 512)])
            yield from decoder_convs("decoder_layer_2", [(1, 256, 512), *DECODER_TAIL])
        case "video.decoder":
            yield from decoder_convs("decoder", [(1, 256, 256), *DECODER_TAIL])
        case _:
            raise ValueError(f"no published file is called {prefix!r}; choose from {', '.join(FILES)}")


def seeded_tensor(name: str, shape: Sequence[int], scale: float) -> Tensor:
    """Standard normals times `scale`, float32, from the legacy generator, whose stream NumPy keeps fixed for ever."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    noise *= scale
    return torch.from_numpy(noise.astype(np.float32))


def weight_gain(conv: str) -> float:
    """Keeps activations of order one; small for queries and keys, so that the softmax stays soft."""
    return {"f": 0.5, "g": 0.5, "h": 1.0}.get(conv.rpartition(".")[2], math.sqrt(2))


def state_dict(prefix: str) -> dict[str, Tensor]:
    """Fresh tensors of one published file.

    Args:
        prefix: a key of `FILES`.
    """
    tensors: dict[str, Tensor] = {}
    for conv, outputs, inputs, kernel in layout(prefix):
        scale = weight_gain(conv) / math.sqrt(inputs * kernel * kernel)
        tensors[f"{conv}.weight"] = seeded_tensor(f"{prefix}.{conv}.weight", (outputs, inputs, kernel, kernel), scale)
        tensors[f"{conv}.bias"] = seeded_tensor(f"{prefix}.{conv}.bias", (outputs,), 0.05)
    return tensors


def write_published_files(folder: str | Path) -> dict[str, Path]:
    """Write every file under its published name below `folder` (146 MB); prefix -> path."""
    paths = {prefix: Path(folder) / name for prefix, name in FILES.items()}
    for prefix, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state_dict(prefix), path)
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: seeded_weights.py FOLDER")
    for path in write_published_files(sys.argv[1]).values():
        print(path)

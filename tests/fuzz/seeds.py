"""Small valid files of every kind, which the fuzz tests damage."""

from __future__ import annotations

import tarfile
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image, ImageCms, features

from adaattn_core import save_model
from tests.helpers.small_models import SMALL, SMALL_VIDEO, small_model

SIDE = 24


def _noise(mode: str) -> Image.Image:
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 4), dtype=np.uint8), "RGBA").resize((SIDE, SIDE))
    if mode == "I;16":
        return Image.fromarray(generator.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16))
    if mode == "F":
        return Image.fromarray(generator.random((SIDE, SIDE), dtype=np.float32))
    if mode in ("RGBA", "LA"):
        return coarse.convert(mode)
    if mode == "LAB":
        return Image.frombytes("LAB", (SIDE, SIDE), coarse.convert("RGB").tobytes())
    return coarse.convert("RGB").convert(mode)


def _encoded(mode: str, kind: str, **options: object) -> bytes:
    written = BytesIO()
    _noise(mode).save(written, kind, **options)
    return written.getvalue()


@cache
def pictures() -> tuple[bytes, ...]:
    """Picture files of all formats and modes that are read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [_encoded(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    files += [_encoded("P", "PNG", transparency=3), _encoded("RGB", "PNG", icc_profile=profile, exif=exif)]
    files += [_encoded(mode, "JPEG", exif=exif, icc_profile=profile) for mode in ("L", "RGB", "CMYK")]
    files += [
        _encoded("RGB", "JPEG", progressive=True),
        _encoded("RGBA", "WEBP"),
        _encoded("RGB", "WEBP", lossless=True),
    ]
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        files.append(_encoded("RGB", "TIFF", compression=compression))
    files += [_encoded(mode, "TIFF") for mode in ("1", "L", "P", "RGBA", "CMYK", "LAB", "I;16", "F")]
    files += [_encoded("L", "BMP"), _encoded("RGB", "BMP"), _encoded("P", "GIF"), _encoded("1", "PPM")]
    files += [_encoded("L", "PPM"), _encoded("RGB", "PPM")]
    files.append(_encoded("P", "GIF", save_all=True, append_images=[_noise("L").convert("P")]))
    if features.check("jpg_2000"):
        files.append(_encoded("RGB", "JPEG2000"))
    if features.check("avif"):
        files.append(_encoded("RGB", "AVIF"))
    return tuple(files)


@cache
def model_files() -> tuple[bytes, ...]:
    """Model files with all tensors, of both kinds."""
    with TemporaryDirectory() as folder:
        for name, config in (("image", SMALL), ("video", SMALL_VIDEO)):
            save_model(small_model(config=config), Path(folder, f"{name}.safetensors"))
        return tuple(path.read_bytes() for path in sorted(Path(folder).iterdir()))


@cache
def state_dicts(zipped: bool) -> tuple[bytes, ...]:
    """`.pth` files with keys of published checkpoints and of a VGG-19, of torch since 1.6 (a zip file) or before."""
    shallow = {f"{name}.{part}": torch.ones(4) for name in "fgh" for part in ("weight", "bias")}
    vgg = {
        "0.weight": torch.ones(3, 3, 1, 1),
        "0.bias": torch.nn.Parameter(torch.ones(3)),
        "2.weight": torch.ones(8)[2:],
    }
    caffe = {"conv1_1.weight": torch.ones(2).half(), "conv1_1.bias": torch.ones(()).expand(4)}
    files = []
    for tensors in (shallow, vgg, caffe):
        written = BytesIO()
        torch.save(tensors, written, _use_new_zipfile_serialization=zipped)
        files.append(written.getvalue())
    return tuple(files)


@cache
def tar_files() -> tuple[bytes, ...]:
    """Tar files of pictures in each format of tar."""
    files = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        written = BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=kind) as archive:
            for index, data in enumerate(pictures()[4:7]):
                info = tarfile.TarInfo(f"folder/{'longer/' * 20 * (index % 2)}{index}.png")
                info.size = len(data)
                archive.addfile(info, BytesIO(data))
        files.append(written.getvalue())
    return tuple(files)


SETTINGS = b"""content = "photos"
style = "paintings"
output = "run"
steps = 2
lr = 1e-4
width = 0.5
kind = "video"
global_levels = ["relu2_1", "relu3_1"]
compile = false
seed = 3
"""
"""A file for `adaattn train --config`."""

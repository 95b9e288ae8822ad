"""The choices of the loader nodes, and how each of them is read. Imports nothing of ComfyUI.

A choice is one of the built-in models, a .safetensors file of ours, or a folder with the published checkpoints,
listed with a slash at the end. `.pth` files are read as data, never executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from .core import config, encoder, errors, model, model_file, published, tensor_file, vgg

BASE = "base (built in)"
COMPACT = "compact (built in)"
OLDER_COMPACT = "built-in"
"""The compact model of version 0.1, under its name in workflows of that time, which keep their pictures."""
BUILT_IN_MODELS = {BASE: model_file.BASE, COMPACT: model_file.COMPACT, OLDER_COMPACT: model_file.OLDER_COMPACT}
BUILT_IN_VGG = "VGG-19 (built in)"
TORCHVISION = "VGG-19 (torchvision)"
SUFFIXES = (".safetensors", ".pth")
VGG_FILE = "vgg_normalised.pth"

Find = Callable[[str], Path | None]
"""Relative name of a file or folder -> its path, or None where there is none."""


def model_choices(names: Iterable[str]) -> list[str]:
    """Choices of a model, from the relative names of the files in the model folders.

    >>> model_choices(["a.safetensors", "P/latest_net_transformer.pth", "P/latest_net_decoder.pth", "vgg.pth"])
    ['base (built in)', 'compact (built in)', 'built-in', 'P/', 'a.safetensors']
    """
    names = list(names)
    folders = [
        {PurePosixPath(n).parent for n in names if n.endswith(file)}
        for file in (published.TRANSFORMER_FILE, published.DECODER_FILE)
    ]
    folders_of = [f"{folder}/" for folder in sorted(folders[0] & folders[1])]
    return [*BUILT_IN_MODELS, *folders_of, *(name for name in names if name.endswith(".safetensors"))]


def encoder_choices(names: Iterable[str]) -> list[str]:
    """Choices of an encoder: every file but the published attention and decoder.

    >>> encoder_choices(["a.safetensors", "P/latest_net_decoder.pth"])
    ['VGG-19 (built in)', 'compact (built in)', 'built-in', 'VGG-19 (torchvision)', 'a.safetensors']
    """
    files = [name for name in names if not PurePosixPath(name).name.startswith("latest_net_")]
    return [BUILT_IN_VGG, COMPACT, OLDER_COMPACT, TORCHVISION, *files]


def read_model(choice: str, find: Find) -> model.StyleTransferModel:
    """Reads the model of a choice.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    if choice in BUILT_IN_MODELS:
        return model_file.load_model(BUILT_IN_MODELS[choice])
    path = _existing(choice, find)
    if not choice.endswith("/"):
        return model_file.load_model(path)
    vgg = path / VGG_FILE if os.path.isfile(path / VGG_FILE) else find(VGG_FILE)
    if vgg is None:
        raise errors.CheckpointError(
            f"{path} holds no {VGG_FILE}; the published checkpoints need the encoder they were trained with. "
            "Put it into that folder."
        )
    return published.convert_published(path, vgg)


def read_encoder(choice: str, find: Find) -> encoder.VGGEncoder:
    """Reads the encoder of a choice; the one of torchvision is downloaded when it is first used.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind, or the download failed.
    """
    if choice in (COMPACT, OLDER_COMPACT):
        return model_file.load_model(BUILT_IN_MODELS[choice]).encoder
    if choice == BUILT_IN_VGG:
        network = vgg.load_vgg(normalized=True)
    elif choice == TORCHVISION:
        network = vgg.load_vgg("torchvision")
    else:
        path = _existing(choice, find)
        if path.suffix == ".safetensors" and tensor_file.read_metadata(path).get("format") == model_file.FORMAT:
            return model_file.load_model(path).encoder
        network = vgg.load_vgg(path)
    return network.eval().requires_grad_(False)


def encoder_config(network: encoder.VGGEncoder) -> config.ModelConfig:
    """The smallest model that an encoder by itself may belong to: what its memory is estimated for."""
    return config.ModelConfig(channels=network.channels, encoder_convs=network.convs, levels=config.VIDEO_LEVELS)


def stamp(choice: str | None, find: Find) -> str:
    """A text that changes with the names, sizes and times of a choice's files. A choice that is connected is None."""
    path = find(choice) if choice and choice not in (*BUILT_IN_MODELS, BUILT_IN_VGG, TORCHVISION) else None
    if path is None:
        return choice or ""
    files = sorted(path.glob("*.pth")) if path.is_dir() else [path]
    beside = find(VGG_FILE) if path.is_dir() and path / VGG_FILE not in files else None
    files += [beside] if beside else []
    return "|".join(f"{file}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def is_there(path: Path) -> bool:
    """Whether the path is a file, or a folder with published checkpoints; another folder may have the same name."""
    return os.path.isfile(path) or os.path.isfile(path / published.TRANSFORMER_FILE)  # False for impossible names, too


def _existing(choice: str, find: Find) -> Path:
    path = find(choice)
    if path is None:
        raise errors.CheckpointError(
            f"{errors.quoted(choice)} is not in models/adaattn any more. Press R and choose another, or put it back."
        )
    return path

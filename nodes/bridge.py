"""All that the nodes want of ComfyUI beyond its types: devices, memory, progress, interruption, model folders.

The only module here that imports comfy and folder_paths. IMAGE is (B, H, W, C), MASK (B, H, W) or (H, W); the core's
pictures are (B, 3, H, W), its masks (B, 1, H, W).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import comfy.model_management as mm
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn

from . import files
from .core import batching, chunked_attention, images, resize, stages, tiling

T = TypeVar("T")

FOLDER = "adaattn"
"""Folder of the user's models, under ComfyUI's models folder and wherever extra_model_paths.yaml says."""

STEPS = 100
PREVIEW_SIDE = 512


# Model folders


def register_folder() -> None:
    """Make models/adaattn known to ComfyUI."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].update(files.SUFFIXES)


def model_files() -> list[str]:
    """Weights files in the model folders, as paths relative to them; looked up again when the user presses R."""
    return [name.replace(os.sep, "/") for name in folder_paths.get_filename_list(FOLDER)]


def find_file(name: str) -> Path | None:
    """A file, or a folder with published checkpoints, of the model folders by its relative path; never one outside."""
    if ".." in PurePath(name).parts or PurePath(name).anchor:
        return None
    candidates = (Path(folder, name) for folder in folder_paths.get_folder_paths(FOLDER))
    return next((path for path in candidates if files.is_there(path)), None)


# Parts of a model


class Part(NamedTuple):
    """A model, or its encoder, attention or decoder, in ComfyUI's hands.

    patcher: ComfyUI's handle, which loads and unloads it. width: channels of the encoder's first block.
    encoder, attention: those of the model it belongs to; an encoder by itself has no attention.
    """

    patcher: Any
    width: int
    encoder: stages.ModelFingerprint
    attention: stages.ModelFingerprint

    @property
    def module(self) -> Any:  # noqa: ANN401 (VGGEncoder, MultiLevelFusion, Decoder: as the socket's type says)
        return self.patcher.model


def part(
    module: nn.Module,
    width: int,
    encoder: stages.ModelFingerprint = stages.UNKNOWN,
    attention: stages.ModelFingerprint = stages.UNKNOWN,
) -> Part:  # noqa: B008
    """A module as ComfyUI wants it."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    handle = patcher(module, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())
    return Part(handle, width, encoder, attention)


@contextmanager
def loaded(parts: Sequence[Part], *pictures: Tensor) -> Iterator[torch.device]:
    """Parts on their device, which is yielded, with memory free beside them for work on these pictures.

    Cancel ends the work before any layer runs, however large the picture.
    """
    pixels = max(_pixels_at_once(picture) for picture in pictures)
    mm.load_models_gpu([one.patcher for one in parts], memory_required=_memory(max(one.width for one in parts), pixels))
    layers = [layer for one in parts for layer in one.module.modules() if not any(layer.children())]
    hooks = [layer.register_forward_pre_hook(_stop_if_cancelled) for layer in layers]
    try:
        yield parts[0].patcher.load_device
    finally:
        for hook in hooks:
            hook.remove()


def _stop_if_cancelled(*_layer_and_inputs: object) -> None:
    mm.throw_exception_if_processing_interrupted()


def _memory(width: int, pixels: int) -> int:
    """Bytes of work on so many pixels at once, roughly: 2.4 GB for 1024 x 1024 with the full-size model.

    Convolutions hold four layers of a strip; attention holds keys, values and their moments, on coarser grids, which
    together are about twice the encoder's first layer, and three copies of a block of weights.
    """
    layer, pairs = 4 * width * pixels, 4 * (pixels // 16) ** 2
    return 4 * min(layer, tiling.DEVICE_TILE_BYTES) + 2 * layer + 3 * min(pairs, chunked_attention.DEVICE_CHUNK_BYTES)


def _pixels_at_once(pictures: Tensor) -> int:
    """Of a batch worked on in windows."""
    one = pictures.shape[-1] * pictures.shape[-2]
    return max(one, min(len(pictures) * one, batching.WINDOW_PIXELS))


def moved(value: T, device: torch.device) -> T:
    """Tensors, in whatever tuples, on a device."""
    return batching.each_tensor(value, lambda x: x.to(device))


def handed_over(value: T) -> T:
    """Tensors where ComfyUI keeps what nodes return."""
    return moved(value, mm.intermediate_device())


def empty_image(pictures: Tensor) -> Tensor:
    """An IMAGE of this size to fill and return."""
    dtype = mm.intermediate_dtype() if hasattr(mm, "intermediate_dtype") else torch.float32
    batch, channels, height, width = pictures.shape
    return torch.empty(batch, height, width, channels, dtype=dtype, device=mm.intermediate_device())


# Progress and interruption


class NodeProgress:
    """A node's progress bar: called with the share that is done. Ends the work when the user pressed Cancel."""

    def __init__(self) -> None:
        self.bar = comfy.utils.ProgressBar(STEPS)
        self.shown = 0

    def __call__(self, done: float) -> None:
        mm.throw_exception_if_processing_interrupted()
        step = int(done * STEPS)
        if step > self.shown:
            self.bar.update_absolute(step, STEPS)
            self.shown = step

    def show(self, picture: Tensor) -> None:
        """A preview of a (1, 3, H, W) picture on the node."""
        picture = picture.cpu()
        scale = PREVIEW_SIDE / max(picture.shape[-2:])
        preview = resize.resize_image(picture, long_side=PREVIEW_SIDE) if scale < 1 else picture
        self.bar.update_absolute(self.shown, STEPS, ("JPEG", images.to_pil(preview), PREVIEW_SIDE))

"""What the nodes use of ComfyUI beyond its types: devices, memory, progress, interruption, model folders.

The only module of the pack that imports comfy and folder_paths. IMAGE is (B, H, W, C), MASK (B, H, W) or (H, W);
pictures of the library are (B, 3, H, W), its masks (B, 1, H, W).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import comfy.model_management as mm
import comfy.model_patcher
import comfy.patcher_extension
import comfy.utils
import folder_paths
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from . import files
from .core import Kept, Shelf, atomic_path, batching, config, digest, images, memory_budget, resize, stages

T = TypeVar("T")

FOLDER = "adaattn"
"""Folder of the user's models: in ComfyUI's models folder, and where extra_model_paths.yaml says."""

KEPT_BYTES = 512 * 2**20
"""Largest memory of what the nodes keep beside a part of a model, so that another strength needs no new attention."""
KEPT_MODELS = 2
"""Models that AdaAttN Stylize used last and that stay in memory, as those of a loader node do."""

STEPS = 100
PREVIEW_SIDE = 512


# Model folders


def register_folder() -> None:
    """Make models/adaattn known to ComfyUI."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].update(files.SUFFIXES)


def model_files() -> list[str]:
    """Weights files in the model folders, as relative paths; listed again when the user presses R."""
    return [name.replace(os.sep, "/") for name in folder_paths.get_filename_list(FOLDER)]


def find_file(name: str) -> Path | None:
    """Path of a file or of a folder with published checkpoints, by its relative path; only inside the model folders."""
    if ".." in PurePath(name).parts or PurePath(name).anchor:
        return None
    candidates = (Path(folder, name) for folder in folder_paths.get_folder_paths(FOLDER))
    return next((path for path in candidates if files.is_there(path)), None)


# Files for the page

TEMPORARY = "adaattn"
"""Subfolder of ComfyUI's temp folder, which the host empties when it starts."""


class TemporaryFile(NamedTuple):
    """A file in ComfyUI's temp folder, as the page asks for it through the route /view."""

    name: str

    def exists(self) -> bool:
        return self._path.is_file()

    @property
    def _path(self) -> Path:
        return Path(folder_paths.get_temp_directory(), TEMPORARY, self.name)

    def write(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._path) as temporary:
            temporary.write_bytes(data)

    def as_output(self) -> dict[str, str]:
        """What a node sends to the page."""
        return {"name": self.name, "subfolder": TEMPORARY, "type": "temp"}


def write_temporary(data: bytes, stem: str) -> TemporaryFile:
    """Data in a file of its own; the name tells its contents apart, so that equal data is written once."""
    file = TemporaryFile(f"{stem}_{hashlib.sha256(data).hexdigest()[:16]}.safetensors")
    if not file.exists():
        file.write(data)
    return file


# Parts of a model


class Part(NamedTuple):
    """A model, or its encoder, attention or decoder, that ComfyUI loads and unloads.

    patcher: ComfyUI's handle. config: of the model it belongs to.
    encoder, attention: fingerprints of that model's; an encoder by itself has no attention. kept: what was computed
    with it, until ComfyUI unloads it.
    """

    patcher: Any
    config: config.ModelConfig
    encoder: stages.ModelFingerprint
    attention: stages.ModelFingerprint
    kept: Kept

    @property
    def module(self) -> Any:  # noqa: ANN401 (VGGEncoder, MultiLevelFusion or Decoder, by the type of the socket)
        return self.patcher.model


def part(
    module: nn.Module,
    model_config: config.ModelConfig,
    encoder: stages.ModelFingerprint = stages.UNKNOWN,
    attention: stages.ModelFingerprint = stages.UNKNOWN,
) -> Part:  # noqa: B008
    """A module that ComfyUI can load and unload."""
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    handle = patcher(module, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())
    kept = Kept(KEPT_BYTES)

    def forget(_patcher: object, unpatch_all: bool) -> None:
        if unpatch_all:  # ComfyUI also detaches a model that it loads again, with its weights in place
            kept.clear()

    handle.add_callback(comfy.patcher_extension.CallbacksMP.ON_DETACH, forget)
    return Part(handle, model_config, encoder, attention, kept)


_models: dict[str, Part] = {}
"""Models of `model_part` by the names and times of their files."""


def model_part(choice: str) -> Part:
    """The whole model of a choice, read when it is first asked for and when its file has changed."""
    stamp = f"{choice}|{files.stamp(choice, find_file)}"
    found = _models.pop(stamp, None)
    if found is None:
        model = files.read_model(choice, find_file)
        found = part(model, model.config)
    _models[stamp] = found  # the one used last stands at the end
    while len(_models) > KEPT_MODELS:
        del _models[next(iter(_models))]
    return found


def shelf(of: Part, device: torch.device, *made_of: object) -> Shelf:
    """What was computed with a part of a model on its device from these values, and lies where outputs are kept."""
    return Shelf(of.kept, (digest(made_of),), to_output_device, lambda value: to_device(value, device))


@contextmanager
def loaded(parts: Sequence[Part], *pictures: Tensor, memory: int | None = None) -> Iterator[torch.device]:
    """Parts of a model on their device, which is yielded, with memory free beside them for work on these pictures.

    `memory` is the need of that work in bytes; None takes that of the forward pass.
    Cancel ends the work before the next layer runs, however large the picture.
    """
    device = parts[0].patcher.load_device
    if memory is None:
        memory = max(memory_budget.unlimited_bytes(parts[0].config, _batch_shape(one), device) for one in pictures)
    mm.load_models_gpu([one.patcher for one in parts], memory_required=memory)
    layers = [layer for one in parts for layer in one.module.modules() if not any(layer.children())]
    hooks = [layer.register_forward_pre_hook(_stop_if_cancelled) for layer in layers]
    try:
        yield device
    finally:
        for hook in hooks:
            hook.remove()


def _stop_if_cancelled(*_layer_and_inputs: object) -> None:
    mm.throw_exception_if_processing_interrupted()


def _batch_shape(pictures: Tensor) -> tuple[int, ...]:
    """Shape of the pictures of a batch that are processed together."""
    return (min(len(pictures), batching.batch_size_for(pictures)), *pictures.shape[1:])


def to_device(value: T, device: torch.device) -> T:
    """Nested tuples and dicts with their tensors on a device."""
    on_device: T = tree_map_only(Tensor, lambda x: x.to(device), value)
    return on_device


def to_output_device(value: T) -> T:
    """The same on the device where ComfyUI keeps the outputs of nodes."""
    return to_device(value, mm.intermediate_device())


def empty_image(pictures: Tensor) -> Tensor:
    """An IMAGE of the size of pictures (B, 3, H, W), to be filled and returned."""
    dtype = mm.intermediate_dtype() if hasattr(mm, "intermediate_dtype") else torch.float32
    batch, channels, height, width = pictures.shape
    return torch.empty(batch, height, width, channels, dtype=dtype, device=mm.intermediate_device())


# Progress and interruption


class NodeProgress:
    """A node's progress bar, called with the completed fraction. Stops the work when the user has pressed Cancel."""

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

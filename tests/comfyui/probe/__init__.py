"""A pack for the tests alone: it sees inside the server, and makes pictures that no node of ComfyUI makes."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import torch
from aiohttp import web
from server import PromptServer

seen: list[tuple[float, bool]] = []
"""Every step of a progress bar since the last look: the share that is done, and whether a picture came with it."""


def _watch_progress() -> None:
    """Stand before the host's own hook, which is in place only after all packs are loaded."""
    inner = comfy.utils.PROGRESS_BAR_HOOK
    if inner is None or getattr(inner, "of_the_tests", False):
        return

    def hook(value: float, total: float, preview: object, *rest: object, **options: object) -> Any:  # noqa: ANN401
        seen.append((value / total, preview is not None))
        return inner(value, total, preview, *rest, **options)

    hook.of_the_tests = True  # type: ignore[attr-defined]
    comfy.utils.PROGRESS_BAR_HOOK = hook


def _tensor_bytes() -> int:
    """What all tensors that Python can reach take together; each storage once."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _kept_bytes() -> int:
    """What the pack keeps beside its models for the next run."""
    return sum(thing.bytes for thing in gc.get_objects() if type(thing).__name__ == "Kept")


def _resident_bytes() -> int | None:
    """Memory of this process that is in RAM, where the system tells, without what malloc holds free."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim:
        trim(0)
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


async def state(request: web.Request) -> web.Response:
    """Models that the host holds, memory, and the steps of progress bars since the last call."""
    _watch_progress()
    gc.collect()
    loaded = [type(entry.model.model).__name__ for entry in mm.current_loaded_models if entry.model is not None]
    steps = list(seen)
    seen.clear()
    memory = {
        "tensor_bytes": _tensor_bytes(), "kept_bytes": _kept_bytes(), "resident_bytes": _resident_bytes(),
    }  # fmt: skip
    return web.json_response({"loaded": loaded, "progress": steps, **memory})


async def progress(request: web.Request) -> web.Response:
    """The same steps, at once and without looking into memory; they are kept."""
    _watch_progress()
    return web.json_response(seen)


PromptServer.instance.routes.get("/adaattn_probe")(state)
PromptServer.instance.routes.get("/adaattn_probe/progress")(progress)


class Picture:
    """A smooth picture of any size, batch, number of channels and precision."""

    CATEGORY = "testing"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple[object, ...]]]:  # noqa: N802 (ComfyUI's name)
        return {
            "required": {
                "width": ("INT", {"default": 128, "min": 1, "max": 8192}),
                "height": ("INT", {"default": 96, "min": 1, "max": 8192}),
                "batch": ("INT", {"default": 1, "min": 1, "max": 64}),
                "channels": ("INT", {"default": 3, "min": 1, "max": 4}),
                "dtype": (["float32", "float16", "bfloat16"], {"default": "float32"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 1000000}),
            }
        }

    def make(
        self, width: int, height: int, batch: int, channels: int, dtype: str, seed: int
    ) -> tuple[torch.Tensor, ...]:
        """Channel by channel, so that pictures of 3 and of 4 channels have the same first three."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.stack([torch.rand(batch, 6, 8, generator=generator) for _ in range(channels)], dim=1)
        picture = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
        return (picture.movedim(1, -1).to(getattr(torch, dtype)),)


NODE_CLASS_MAPPINGS = {"AdaAttNProbe_Picture": Picture}

"""Where a model runs and in which precision: names of devices, and what each of them computes natively."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import autocast

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def pick_device(name: str = "auto") -> torch.device:
    """The device named "cpu", "cuda", "cuda:1", "mps", ...; "auto" is cuda, mps or cpu, whichever is there first.

    Raises:
        ValueError: there is no such device here; the text lists those there are.
    """
    if name == "auto":
        name = known_devices()[0]
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a typo, no driver, a build without it
        there = ", ".join(known_devices())
        raise ValueError(
            f"device {name!r} is not there; this machine has {there}. Choose one of these, or auto."
        ) from error
    return device


def known_devices() -> list[str]:
    """Names for `pick_device`, the best one first."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*names, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively: elsewhere it is slower than float32, not faster."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """dtype of weights and convolutions; "auto" is bfloat16 where the device computes it natively, else float32.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; known are {', '.join(PRECISIONS)}")
    if precision == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def autocasts(device_type: str) -> bool:
    """Whether autocast is on there; some devices, such as DirectML's, do not have it."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switches autocast off where it is on: torch refuses even that for devices that do not have it."""
    return autocast(device_type, enabled=False) if autocasts(device_type) else nullcontext()


@contextmanager
def disable_tf32(device: torch.device) -> Iterator[None]:
    """Convolutions with all 23 bits: torch lets cuDNN compute them in TF32, with 10, which moves what a peaked
    softmax looks at."""
    if device.type != "cuda":
        yield
        return
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed

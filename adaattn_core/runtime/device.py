"""Devices and precisions: which exist on this machine, and which one a name stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import autocast

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def pick_device(name: str = "auto") -> torch.device:
    """The device named "cpu", "cuda", "cuda:1", "mps", ...; "auto" is the first available of cuda, mps and cpu.

    Raises:
        ValueError: no such device on this machine; the text lists the available ones.
    """
    if name == "auto":
        name = known_devices()[0]
    try:
        device = torch.device(name)
        torch.empty(1, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a typo, no driver, a build without it
        available = ", ".join(known_devices())
        raise ValueError(
            f"device {name!r} is not there; this machine has {available}. Choose one of these, or auto."
        ) from error
    return device


def known_devices() -> list[str]:
    """Names of the available devices, the fastest first."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*names, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively; emulated, it is slower than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes it natively, else float32."""
    return torch.bfloat16 if computes_bfloat16(device) else torch.float32


def inference_dtype(precision: Precision) -> torch.dtype:
    """dtype of a model's decoder; "auto" is float32, so that the command line computes what the library computes.

    Raises:
        ValueError: an unknown precision.
    """
    return _dtype(precision, auto=torch.float32)


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """dtype of convolutions in training; "auto" is the fastest on the device.

    Raises:
        ValueError: an unknown precision.
    """
    return _dtype(precision, auto=fastest_dtype(device))


def _dtype(precision: Precision, auto: torch.dtype) -> torch.dtype:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; known are {', '.join(PRECISIONS)}")
    return {"auto": auto, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def autocasts(device_type: str) -> bool:
    """Whether autocast is enabled for a type of device; some, such as DirectML's, do not support it."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Disables autocast if it is enabled; torch raises an error even for that on devices without autocast."""
    return autocast(device_type, enabled=False) if autocasts(device_type) else nullcontext()


@contextmanager
def disable_tf32(device: torch.device) -> Iterator[None]:
    """Convolutions with float32's 23 bits on CUDA devices.

    By default torch lets cuDNN use TF32, with 10 bits, which changes the style positions a peaked softmax selects.
    """
    if device.type != "cuda":
        yield
        return
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed

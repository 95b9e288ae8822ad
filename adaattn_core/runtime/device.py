"""Where a model runs and in which precision: names of devices, and what each of them computes natively."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, autocast

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

IDLE_BYTES = 512 * 2**20

LARGE_PIXELS = 1024 * 1024
"""From here on it is worth asking the system for pages again to leave no gaps between one step and the next."""

CPU = torch.device("cpu")


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
def true_float32(device: torch.device) -> Iterator[None]:
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left; on the CPU and on MPS, torch says so in words only."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process holds: on a device with memory of its own, there; else of the machine's.

    Only Linux tells; elsewhere it is what Python and torch take before any work.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.is_file() else IDLE_BYTES


def trim_memory(device: torch.device = CPU) -> None:
    """Give pages between what is still in use back to the system: glibc keeps those of tensors under 32 MiB, which
    count as held. A third of a millisecond; nothing where the C library is another, or the work is elsewhere."""
    if sys.platform == "linux" and device.type == "cpu":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def close_gaps(picture: Tensor) -> None:
    """`trim_memory` between two steps of the work on a picture that is so large that it is worth it."""
    if picture.shape[-2] * picture.shape[-1] >= LARGE_PIXELS:
        trim_memory(picture.device)


def free_memory() -> None:
    """Give back what torch keeps for later on the devices that are in use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()

"""Seconds and peak memory of models, beside a plain reference of the published algorithm.

Every measurement is a process of its own, so that its peak memory is its own too. Subjects take turns, so that a
machine that gets slower or faster during the run does so for all of them.

The reference lives in benchmarks/reference.py of the repository and is left out where that file is not there.
"""

from __future__ import annotations

import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .checkpoint import load_model, ready
from .encoder import VGG19_CONVS, conv_names
from .model import ModelConfig, StyleTransferModel
from .published import DEEP_TABLE, IMAGE_DECODER, SHALLOW_TABLE, published_indices
from .stylize import encode_style, stylize

REFERENCE_FILE = Path(__file__).parent.parent / "benchmarks" / "reference.py"
SUBJECTS = {
    "reference": "published algorithm, full size, 4096 sampled positions on relu3_1",
    "base": "full size, exact attention",
    "base-bfloat16": "full size, exact attention, bfloat16",
    "base-cached": "full size, exact attention, style encoded before",
    "compact": "built-in model, exact attention",
    "compact-bfloat16": "built-in model, exact attention, bfloat16",
}
SIZES = (256, 512, 1024)
LONG_SECONDS = 10.0


def compare(subjects: Sequence[str], size: int, repeats: int) -> list[dict[str, Any]]:
    """A row of numbers for each subject at one size: seconds, their spread, peak memory, ratios to the reference."""
    found: dict[str, list[dict[str, Any]]] = {subject: [] for subject in subjects}
    for _ in range(repeats):
        for subject in subjects:
            found[subject].append(_measured_apart(subject, size))
    return [_summary(subject, size, runs, found.get("reference")) for subject, runs in found.items()]


def _measured_apart(subject: str, size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "adaattn_core.bench", subject, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {subject} at {size} failed: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _summary(
    subject: str, size: int, runs: list[dict[str, Any]], reference: list[dict[str, Any]] | None
) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    row: dict[str, Any] = {
        "subject": subject,
        "size": size,
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "peak_gib": max(run["peak_gib"] for run in runs),
    }
    if reference:
        row["time_ratio"] = statistics.median(a / b["seconds"] for a, b in zip(seconds, reference, strict=True))
        row["memory_ratio"] = row["peak_gib"] / max(run["peak_gib"] for run in reference)
    return row


# One measurement, in a process of its own


def measure(subject: str, size: int) -> dict[str, float]:
    """Seconds of the faster of two calls (of one, if it takes long) after a warm-up at 64 pixels, and peak memory."""
    generator = torch.Generator().manual_seed(0)
    content, style = (torch.rand(1, 3, size, size, generator=generator) for _ in range(2))
    small = torch.rand(1, 3, 64, 64, generator=generator)
    paint = _painter(subject, style)
    with torch.inference_mode():
        paint(small)
        seconds: list[float] = []
        while not seconds or (len(seconds) < 2 and seconds[0] < LONG_SECONDS):
            start = time.perf_counter()
            paint(content)
            seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "peak_gib": peak_memory_bytes() / 2**30}


def peak_memory_bytes() -> int:
    """Largest resident size this process ever had.

    Raises:
        ValueError: on Windows, whose Python cannot tell.
    """
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage: Linux counts what the parent had when it started this process
        (kilobytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status.read_text(), flags=re.MULTILINE)
        return 1024 * int(kilobytes)
    try:
        import resource
    except ImportError as error:
        raise ValueError(
            "peak memory cannot be measured on Windows; run the benchmark under Linux, macOS or WSL"
        ) from error
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _painter(subject: str, style: Tensor) -> Callable[[Tensor], Tensor]:
    if subject == "reference":
        reference, files = load_reference(), published_files(random_base())
        sampling = reference.Sampling(generator=torch.Generator().manual_seed(0))
        return lambda content: reference.stylize(files, content, style, sampling)
    name, _, variant = subject.partition("-")
    dtype = torch.bfloat16 if variant == "bfloat16" else torch.float32
    model = load_model(dtype=dtype) if name == "compact" else ready(random_base().paint_in(dtype))
    if variant == "cached":
        painted = encode_style(model, style)
        return lambda content: stylize(model, content, painted)
    return lambda content: stylize(model, content, style)


def random_base() -> StyleTransferModel:
    """The full-size architecture with repeatable random weights: speed does not depend on their values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return StyleTransferModel(ModelConfig()).requires_grad_(False)


def published_files(model: StyleTransferModel) -> dict[str, dict[str, Tensor]]:
    """A full-size image model's weights under the published names, as benchmarks/reference.py takes them."""
    weights = model.state_dict()
    vgg = {str(i): f"encoder.{name}" for i, name in zip(published_indices(), _encoder_layers(), strict=True)}
    decoder = {key: f"decoder.{name}" for key, name in IMAGE_DECODER.items()}
    tables = {"vgg": vgg, "adaattn_3": SHALLOW_TABLE, "transformer": DEEP_TABLE, "decoder": decoder}
    return {
        prefix: {f"{old}.{part}": weights[f"{new}.{part}"] for old, new in table.items() for part in ("weight", "bias")}
        for prefix, table in tables.items()
    }


def _encoder_layers() -> list[str]:
    return ["conv0", *(f"layers.{name}" for name in conv_names(VGG19_CONVS))]


def load_reference() -> ModuleType:
    """benchmarks/reference.py of the repository this package was imported from."""
    spec = importlib.util.spec_from_file_location("adaattn_reference", REFERENCE_FILE)
    if spec is None or spec.loader is None:
        raise ImportError(f"{REFERENCE_FILE} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))

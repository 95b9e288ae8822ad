"""Seconds and peak memory of models, beside a plain reference of the published algorithm.

Every measurement is a process of its own, so that its peak memory is its own too. Subjects take turns, so that a
machine that gets slower or faster during the run does so for all of them.

The reference lives in benchmarks/reference.py of the repository and is left out where that file is not there.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..checkpoints.model_file import BUILT_IN, find_model, load_model, prepare_for_inference, read_metadata
from ..checkpoints.published import DEEP_TABLE, IMAGE_DECODER, SHALLOW_TABLE
from ..checkpoints.vgg import published_indices
from ..inference.stylize import encode_style, stylize
from ..io.images import load_image
from ..models.config import ModelConfig
from ..models.encoder import VGG19_CONVS, conv_names
from ..models.model import StyleTransferModel
from ..runtime.memory import peak_memory_bytes

REFERENCE_FILE = Path(__file__).parents[2] / "benchmarks" / "reference.py"
EXAMPLES = Path(__file__).parents[2] / "examples"
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


def compare(subjects: Sequence[str], size: int, repeats: int, weights: Path | None = None) -> list[dict[str, Any]]:
    """A row of numbers for each subject at one size: seconds, their spread, counted work, peak memory, ratios.

    Args:
        subjects: of SUBJECTS.
        size: side of the square pictures.
        repeats: processes for each number.
        weights: a full-size model file for the reference and the full-size subjects; None takes random weights.
    """
    found: dict[str, list[dict[str, Any]]] = {subject: [] for subject in subjects}
    for _ in range(repeats):
        for subject in subjects:
            found[subject].append(_measured_apart(subject, size, weights))
    return [_summary(subject, size, runs, found.get("reference")) for subject, runs in found.items()]


def _measured_apart(subject: str, size: int, weights: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "adaattn_core.benchmarking.inference", subject, str(size)]
    command += [str(weights)] if weights else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise ValueError(
            f"measuring {subject} at {size} was ended by signal {-done.returncode}, as happens when memory runs out. "
            "Leave out that size or subject."
        )
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
        "gflop": runs[0]["gflop"],
        "gigabytes": runs[0]["gigabytes"],
        "peak_gib": max(run["peak_gib"] for run in runs),
    }
    if reference:
        row["time_ratio"] = statistics.median(a / b["seconds"] for a, b in zip(seconds, reference, strict=True))
        row["memory_ratio"] = row["peak_gib"] / max(run["peak_gib"] for run in reference)
    return row


# One measurement, in a process of its own


def measure(subject: str, size: int, weights: Path | None = None) -> dict[str, float]:
    """One process' numbers, after a warm-up at 64 pixels.

    Returns:
        seconds: the faster of two calls (of one, if it takes long).
        gflop: arithmetic of convolutions and matrix products, counted as they run: 2 for a multiplication and addition.
        gigabytes: read and written by all operations, as if nothing stayed in a cache.
        peak_gib: of the whole process.
    """
    # Subnormal weights make the reference seven times slower on some processors; that is not what is compared.
    torch.set_flush_denormal(subject == "reference")
    content, style = pictures(size)
    paint = _painter(subject, style, weights)
    with torch.inference_mode():
        paint(pictures(64)[0])
        seconds: list[float] = []
        while not seconds or (len(seconds) < 2 and seconds[0] < LONG_SECONDS):
            start = time.perf_counter()
            paint(content)
            seconds.append(time.perf_counter() - start)
        peak = peak_memory_bytes()
        from torch.utils.flop_counter import FlopCounterMode  # late: its imports take 80 MB, which are nobody's peak

        counter = FlopCounterMode(display=False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # counters see what their own thread does
        with counter as arithmetic, MemoryTraffic() as traffic:  # type: ignore[no-untyped-call]
            paint(content)
        torch.set_num_threads(threads)
    gflop, gigabytes = arithmetic.get_total_flops() / 1e9, traffic.bytes / 1e9
    return {"seconds": min(seconds), "gflop": gflop, "gigabytes": gigabytes, "peak_gib": peak / 2**30}


class MemoryTraffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of what operations read and write; those that only look at a tensor in another way are left out."""

    bytes = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        written = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if not getattr(func, "is_view", False):
            self.bytes += sum(x.numel() * x.element_size() for x in (*read, *written))
        return result


def pictures(size: int) -> tuple[Tensor, Tensor]:
    """A photograph and a painting of examples/, since how much attention there is to compute depends on what is seen;
    noise where the package was installed without them. (1, 3, size, size) each."""
    files = [EXAMPLES / name for name in ("coffee.jpg", "great_wave.jpg")]
    if all(file.is_file() for file in files):
        content, style = (load_image(file) for file in files)
        content, style = (
            F.interpolate(x, size=(size, size), mode="bilinear", antialias=True) for x in (content, style)
        )
        return content.clamp(0, 1), style.clamp(0, 1)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, size, size, generator=generator), torch.rand(1, 3, size, size, generator=generator)


def _painter(subject: str, style: Tensor, weights: Path | None) -> Callable[[Tensor], Tensor]:
    def full_size() -> StyleTransferModel:
        return load_model(weights) if weights else random_base()

    if subject == "reference":
        reference, files = load_reference(), published_files(full_size())
        sampling = reference.Sampling(generator=torch.Generator().manual_seed(0))
        return lambda content: reference.stylize(files, content, style, sampling)
    name, _, variant = subject.partition("-")
    dtype = torch.bfloat16 if variant == "bfloat16" else torch.float32
    model = load_model(dtype=dtype) if name == "compact" else prepare_for_inference(full_size().set_precision(dtype))
    if variant == "cached":
        painted = encode_style(model, style)
        return lambda content: stylize(model, content, painted)
    return lambda content: stylize(model, content, style)


def config_of(subject: str, weights: Path | None) -> ModelConfig | None:
    """Shapes of a subject's model; None for the reference, which is not ours to count."""
    if subject == "reference":
        return None
    path = find_model(BUILT_IN) if subject.startswith("compact") else weights
    return ModelConfig.from_dict(json.loads(read_metadata(path)["config"])) if path else ModelConfig()


def random_base() -> StyleTransferModel:
    """The full-size architecture with repeatable random weights, whose attention is flat: the slowest case for ours.

    The other subjects' speed does not depend on the values of weights.
    """
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
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None)))

"""Time and peak memory of stylisation, beside a reference implementation of the published algorithm.

Every measurement runs in a separate process, because peak memory is a property of a process. Subjects alternate, so
that a machine whose speed changes during the run affects all of them.

The reference is benchmarks/reference.py of the repository; it is left out where that file does not exist.
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

from ..checkpoints.model_file import config_from_metadata, find_model, load_model, prepare_for_inference
from ..checkpoints.published import DEEP_TABLE, IMAGE_DECODER, SHALLOW_TABLE
from ..checkpoints.tensor_file import read_metadata
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
    "published": "published shape, exact attention",
    "published-bfloat16": "published shape, exact attention, bfloat16",
    "published-cached": "published shape, exact attention, style encoded in advance",
    "base": "built-in full-size model, exact attention",
    "base-float16": "built-in full-size model, exact attention, float16 decoder",
    "compact": "built-in compact model, exact attention",
    "compact-bfloat16": "built-in compact model, exact attention, bfloat16",
}
SIZES = (256, 512, 1024)
LONG_SECONDS = 10.0


def compare(subjects: Sequence[str], size: int, repeats: int, weights: Path | None = None) -> list[dict[str, Any]]:
    """Measurements of each subject at one size: seconds and their spread, operations, peak memory, ratios.

    Args:
        subjects: names of SUBJECTS.
        size: side of the square pictures in pixels.
        repeats: processes per subject.
        weights: a model file of the published shape, for the reference and the published subjects; None uses random
            weights.

    Returns:
        one row per subject, with the ratios to the reference if that is one of them.
    """
    runs: dict[str, list[dict[str, Any]]] = {subject: [] for subject in subjects}
    for _ in range(repeats):
        for subject in subjects:
            runs[subject].append(_measure_in_process(subject, size, weights))
    return [_summarize(subject, size, of_subject, runs.get("reference")) for subject, of_subject in runs.items()]


def _measure_in_process(subject: str, size: int, weights: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "adaattn_core.benchmarking.inference", subject, str(size)]
    command += [str(weights)] if weights else []
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode < 0:
        raise ValueError(
            f"measuring {subject} at {size} was ended by signal {-process.returncode}, as happens when memory runs "
            "out. Leave out that size or subject."
        )
    if process.returncode:
        raise RuntimeError(f"measuring {subject} at {size} failed: {process.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def _summarize(
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


# One measurement, in the separate process


def measure(subject: str, size: int, weights: Path | None = None) -> dict[str, float]:
    """Measurements of this process, after a warm-up at 64 pixels.

    Returns:
        seconds: time of the faster of two calls, or of one call that takes over LONG_SECONDS.
        gflop: operations of convolutions and matrix products, counted at run time: 2 per multiplication and addition.
        gigabytes: bytes read and written by all operations, as if there were no cache.
        peak_gib: peak memory of the whole process.
    """
    # Subnormal weights make the reference seven times slower on some processors, which is not the comparison's aim.
    torch.set_flush_denormal(subject == "reference")
    content, style = pictures(size)
    stylize_content = _stylizer(subject, style, weights)
    with torch.inference_mode():
        stylize_content(pictures(64)[0])
        seconds: list[float] = []
        while not seconds or (len(seconds) < 2 and seconds[0] < LONG_SECONDS):
            start = time.perf_counter()
            stylize_content(content)
            seconds.append(time.perf_counter() - start)
        peak = peak_memory_bytes()
        from torch.utils.flop_counter import FlopCounterMode  # imported late: it takes 80 MB

        counter = FlopCounterMode(display=False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the counters see only the operations of their own thread
        with counter as arithmetic, MemoryTraffic() as traffic:  # type: ignore[no-untyped-call]
            stylize_content(content)
        torch.set_num_threads(threads)
    gflop, gigabytes = arithmetic.get_total_flops() / 1e9, traffic.bytes / 1e9
    return {"seconds": min(seconds), "gflop": gflop, "gigabytes": gigabytes, "peak_gib": peak / 2**30}


class MemoryTraffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes that operations read and write; views are not counted."""

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
    """A content and a style, (1, 3, size, size) each: a photograph and a painting of examples/, noise without them.

    Real pictures, because the time of pruned attention depends on the pictures.
    """
    files = [EXAMPLES / name for name in ("coffee.jpg", "great_wave.jpg")]
    if all(file.is_file() for file in files):
        content, style = (load_image(file) for file in files)
        content, style = (
            F.interpolate(x, size=(size, size), mode="bilinear", antialias=True) for x in (content, style)
        )
        return content.clamp(0, 1), style.clamp(0, 1)
    generator = torch.Generator().manual_seed(0)
    content, style = torch.rand(2, 1, 3, size, size, generator=generator, dtype=torch.float32)
    return content, style


def _stylizer(subject: str, style: Tensor, weights: Path | None) -> Callable[[Tensor], Tensor]:
    def published() -> StyleTransferModel:
        return load_model(weights) if weights else random_published()

    if subject == "reference":
        reference, files = load_reference(), published_files(published())
        sampling = reference.Sampling(generator=torch.Generator().manual_seed(0))
        return lambda content: reference.stylize(files, content, style, sampling)
    name, _, variant = subject.partition("-")
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(variant, torch.float32)
    if name == "published":
        model = prepare_for_inference(published().set_precision(dtype))
    else:
        model = load_model(name, dtype=dtype)
    if variant == "cached":
        encoded = encode_style(model, style)
        return lambda content: stylize(model, content, encoded)
    return lambda content: stylize(model, content, style)


def config_of(subject: str, weights: Path | None) -> ModelConfig | None:
    """The config of a subject's model, whose operations `scaling.flops` counts; None for the reference."""
    if subject == "reference":
        return None
    name = subject.partition("-")[0]
    path = weights if name == "published" else find_model(name)
    return config_from_metadata(read_metadata(path), path) if path else ModelConfig()


def random_published() -> StyleTransferModel:
    """The published architecture with seeded random weights.

    Their attention is flat, so key pruning never succeeds: the slowest case of exact attention. The time of the other
    subjects does not depend on the values of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return StyleTransferModel(ModelConfig()).requires_grad_(False)


def published_files(model: StyleTransferModel) -> dict[str, dict[str, Tensor]]:
    """The weights of an image model of the published shape by their published names, as benchmarks/reference.py reads
    them."""
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
    """The module benchmarks/reference.py of the repository that this package was imported from."""
    spec = importlib.util.spec_from_file_location("adaattn_reference", REFERENCE_FILE)
    if spec is None or spec.loader is None:
        raise ImportError(f"{REFERENCE_FILE} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None)))

"""Peak memory of stylising one pair with a model, measured in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.model_file import load_model
from ..inference.stylize import stylize
from ..runtime.memory import peak_memory_bytes
from .methods import ModelMethod, Pair, load_reduced


def peak_memory_gib(method: ModelMethod, pair: Pair, size: int) -> float | None:
    """Peak memory in GiB of a process that loads the model and stylises the pair: CUDA memory on a CUDA device.

    None where the system does not report it, or the process fails: a missing number does not end an evaluation.
    """
    device = next(method.model.parameters()).device
    job = {
        "source": method.source,
        "device": str(device),
        "dtype": _name(method.model.precision),
        "content": str(pair.content),
        "style": str(pair.style),
        "size": size,
        "options": method.options | {"refine_dtype": _name(method.refine_dtype)},
    }
    command = [sys.executable, "-m", __name__, json.dumps(job)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return float(process.stdout)
    except ValueError:
        return None


def _name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def measure_peak(job: dict[str, Any]) -> float:
    """The part of `peak_memory_gib` that runs in the separate process."""
    device = torch.device(job["device"])
    model = load_model(job["source"], device=device, dtype=getattr(torch, job["dtype"]))
    content, style = (load_reduced(Path(job[name]), job["size"]) for name in ("content", "style"))
    options = job["options"]
    if options.get("refine_dtype"):
        options["refine_dtype"] = getattr(torch, options["refine_dtype"])
    stylize(model, content, style, **options)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
    return peak / 2**30


if __name__ == "__main__":
    print(measure_peak(json.loads(sys.argv[1])))

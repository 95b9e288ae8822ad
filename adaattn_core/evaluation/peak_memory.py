"""Peak memory of painting one pair with a model, in a process of its own, so that nothing else counts."""

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
from .methods import ModelMethod, Pair
from .runner import load_reduced


def peak_memory_gib(painter: ModelMethod, pair: Pair, size: int) -> float | None:
    """GiB that a process needs to load the model and paint the pair: of the device, where that has its own memory.

    None where the system cannot tell, or the process fails: a missing number must not end an evaluation.
    """
    first = next(painter.model.parameters())
    job = {
        "source": painter.source,
        "device": str(first.device),
        "dtype": str(painter.model.precision).removeprefix("torch."),
        "content": str(pair.content),
        "style": str(pair.style),
        "size": size,
        "options": {"attention": painter.attention, "temperature": painter.temperature, "strength": painter.strength},
    }
    command = [sys.executable, "-m", __name__, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return float(done.stdout)
    except ValueError:
        return None


def paint_and_measure(job: dict[str, Any]) -> float:
    """In the process of its own: see `peak_memory_gib`."""
    device = torch.device(job["device"])
    model = load_model(job["source"], device=device, dtype=getattr(torch, job["dtype"]))
    content, style = (load_reduced(Path(job[name]), job["size"]) for name in ("content", "style"))
    stylize(model, content, style, **job["options"])
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
    return peak / 2**30


if __name__ == "__main__":
    print(paint_and_measure(json.loads(sys.argv[1])))

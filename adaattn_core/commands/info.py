"""Say what a weights file holds, or what this machine has."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from ..checkpoints.model_file import (
    BUILT_IN,
    MODEL_NAMES,
    find_model,
    fingerprint,
    load_model,
    read_metadata,
    read_tensors,
)
from ..errors import CheckpointError
from ..runtime.device import computes_bfloat16, known_devices

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help=f"{' or '.join(MODEL_NAMES)}, or a .safetensors file (default: tell about this machine)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    facts = about_machine() if args.model is None else about_model(args.model)
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name:{width}}  {text}")
    return 0


def about_machine() -> dict[str, str]:
    from .. import __version__

    versions = [f"{package} {version(package)}" for package in PACKAGES]
    facts = {"adaattn": __version__, "python": platform.python_version(), "packages": ", ".join(versions)}
    facts |= {name: _about_device(torch.device(name)) for name in known_devices()}
    return facts | {f"model {name}": _about_known_model(name) for name in MODEL_NAMES}


def _about_device(device: torch.device) -> str:
    native = "yes" if computes_bfloat16(device) else "no"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, native bfloat16: {native}"
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads on {os.cpu_count()} cores, native bfloat16: {native}"
    return f"native bfloat16: {native}"


def _about_known_model(name: str) -> str:
    try:
        path = find_model(name)
    except CheckpointError as error:
        return str(error)
    if path.is_file():
        return str(path)
    return f"not there: {path}" + (" should have been installed with adaattn" if name == BUILT_IN else "")


def about_model(name: str) -> dict[str, str]:
    """Facts about a weights file by name.

    Raises:
        CheckpointError: as `load_model`.
    """
    path = find_model(name)
    model, metadata = load_model(path), read_metadata(path)
    tensors = read_tensors(path).values()
    stored = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
    parts = {part: sum(weight.numel() for weight in module.parameters()) for part, module in model.named_children()}
    facts = {
        "file": str(path),
        "size": f"{Path(path).stat().st_size / 1e6:.2f} MB",
        "stored as": ", ".join(stored),
        "architecture": metadata.get("architecture", "not said"),
        "parameters": f"{sum(parts.values()):,}: " + ", ".join(f"{part} {count:,}" for part, count in parts.items()),
        "fingerprint": f"{fingerprint(model)}, of the encoder {fingerprint(model.encoder)}",
    }
    facts |= {name: _plain(value) for name, value in model.config.to_dict().items()}
    return facts | _provenance(metadata)


def _provenance(metadata: Mapping[str, str]) -> dict[str, str]:
    """License and training; a training run of ours says its steps and settings as JSON."""
    facts = {"license": metadata.get("license", "not said")}
    trained_on = metadata.get("trained_on", "not said")
    try:
        record = json.loads(trained_on)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return facts | {"trained on": trained_on}
    return facts | {f"trained: {name}": _plain(value) for name, value in record.items()}


def _plain(value: object) -> str:
    """JSON values on one line, without its marks."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items())
    return "(" + " ".join(map(_plain, value)) + ")" if isinstance(value, list) else str(value)

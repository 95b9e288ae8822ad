"""Show the contents of a model file, or the devices and packages of this machine."""

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

from ..checkpoints.model_file import BUILT_IN, MODEL_NAMES, find_model, fingerprint, load_model
from ..checkpoints.tensor_file import read_metadata, read_tensors
from ..errors import CheckpointError, printable
from ..runtime.device import computes_bfloat16, known_devices

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors")
NOT_STATED = "not stated"
LONGEST_FACT = 10_000
"""Characters of a value of the metadata that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help=f"{' or '.join(MODEL_NAMES)}, or the path of a .safetensors file (default: show this machine)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    facts = describe_machine() if args.model is None else describe_model(args.model)
    width = max(map(len, map(printable, facts)))
    for name, text in facts.items():
        print(f"{printable(name):{width}}  {printable(text, LONGEST_FACT)}")
    return 0


def describe_machine() -> dict[str, str]:
    """Versions, devices and known models of this machine, by name."""
    from .. import __version__

    versions = [f"{package} {version(package)}" for package in PACKAGES]
    facts = {"adaattn": __version__, "python": platform.python_version(), "packages": ", ".join(versions)}
    facts |= {name: _describe_device(torch.device(name)) for name in known_devices()}
    return facts | {f"model {name}": _describe_known_model(name) for name in MODEL_NAMES}


def _describe_device(device: torch.device) -> str:
    native = "yes" if computes_bfloat16(device) else "no"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, native bfloat16: {native}"
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads on {os.cpu_count()} cores, native bfloat16: {native}"
    return f"native bfloat16: {native}"


def _describe_known_model(name: str) -> str:
    try:
        path = find_model(name)
    except CheckpointError as error:
        return str(error)
    if path.is_file():
        return str(path)
    return f"not installed: {path}" + (" belongs to adaattn; install it again" if name in BUILT_IN else "")


def describe_model(name: str) -> dict[str, str]:
    """Size, configuration and provenance of a model file, by name.

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
        "architecture": metadata.get("architecture", NOT_STATED),
        "parameters": f"{sum(parts.values()):,}: " + ", ".join(f"{part} {count:,}" for part, count in parts.items()),
        "fingerprint": f"{fingerprint(model)}, of the encoder {fingerprint(model.encoder)}",
    }
    facts |= {name: _plain(value) for name, value in model.config.to_dict().items()}
    return facts | _provenance(metadata)


def _provenance(metadata: Mapping[str, str]) -> dict[str, str]:
    """The licence and the training. Models of `adaattn train` store their steps and settings as JSON."""
    facts = {"license": metadata.get("license", NOT_STATED)}
    trained_on = metadata.get("trained_on", NOT_STATED)
    try:
        record = json.loads(trained_on)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return facts | {"trained on": trained_on}
    return facts | {f"trained: {name}": _plain(value) for name, value in record.items()}


def _plain(value: object) -> str:
    """A JSON value in one line without quotes and braces."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items())
    return "(" + " ".join(map(_plain, value)) + ")" if isinstance(value, list) else str(value)

"""The checkpoint of a training run: where it lies, what it holds, and which run may go on from it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..io.files import atomic_path
from .config import TrainConfig
from .dataset import DataError

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "latest.pt"
MODEL = "model.safetensors"
"""What a run folder holds, as paths inside it."""

PARTS = frozenset(("step", "config", "model", "ema", "adapters", "optimizer", "skipped"))
FREE_SETTINGS = frozenset(
    ("output", "content", "style", "vgg", "init", "refit_attention")
    + ("device", "workers", "compile", "checkpoint_every", "keep_checkpoints", "sample_every", "tensorboard")
)
"""Settings that may differ when a run is resumed: where things are, not what is computed."""


def check_run_folder(folder: Path, resume: bool) -> None:
    """CheckpointError or DataError unless the folder holds a run to resume, or none to start one."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise DataError(f"{there} is a file, and {folder} has to be a folder. Choose another --output.")
    if not os.access(there, os.W_OK):
        raise DataError(f"{there} may not be written to. Choose another --output, or change its permissions.")
    has_checkpoint = (folder / CHECKPOINT).is_file()
    if resume and not has_checkpoint:
        raise CheckpointError(f"{folder / CHECKPOINT}: no checkpoint to resume from. Start without --resume.")
    if has_checkpoint and not resume:
        raise DataError(f"{folder} already holds a run. Add --resume to go on, or choose another --output.")


def public_settings(config: TrainConfig) -> dict[str, Any]:
    """Settings for a model file that may travel: of paths the last name only, which says nothing of their owner."""
    settings = asdict(config)
    paths = {name: Path(settings[name]).name for name in ("content", "style", "vgg", "output", "init")}
    return settings | paths


def write_checkpoint(path: Path, state: dict[str, Any], earlier: int | None = None, keep: int = 1) -> None:
    """Write PARTS, whole or not at all, and keep what was there as one of the `keep` newest.

    Args:
        path: latest.pt.
        state: PARTS.
        earlier: step of the checkpoint that is at `path` now; None if there is none.
        keep: this one and the last before it, which become step-N.pt; older ones go once this one is whole.
    """
    buffer = BytesIO()  # written by Python: torch.save would hide a full disk in an error of its own
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        if keep > 1 and earlier not in (None, state["step"]) and path.is_file():
            _name_also(path, path.with_name(f"step-{earlier:06d}{path.suffix}"))
    for old in sorted(_kept_before(path), key=_age)[: 1 - keep or None]:
        old.unlink()


def _kept_before(path: Path) -> list[Path]:
    """Earlier checkpoints beside latest.pt."""
    return [file for file in path.parent.glob(f"step-*{path.suffix}") if file.stem[5:].isdigit()]


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns


def _name_also(path: Path, name: Path) -> None:
    """Give a file another name, at no cost where the disk has hard links."""
    if name.exists() and name.samefile(path):
        return
    with atomic_path(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copy2(path, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote.

    Raises:
        CheckpointError: cut short, or no training checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = PARTS - state.keys()
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        earlier = max(_kept_before(path), key=_age, default=None)
        advice = f"Start a new run, from {path.parents[1] / MODEL} with --init."
        if earlier:
            advice = f"Copy {earlier.name} over it, which was saved before, and --resume."
        raise CheckpointError(f"{path} is damaged or no training checkpoint. {advice}") from error
    if missing:
        raise CheckpointError(f"{path} is no training checkpoint: it has no {', '.join(sorted(missing))}.")
    return dict(state)


def check_same_settings(config: TrainConfig, saved: str) -> None:
    """CheckpointError unless a run of these settings computes what the one that saved its settings did.

    A setting that is younger than the checkpoint counts as if it had had its default then.

    Args:
        config: of the run that would go on.
        saved: config of the checkpoint, as JSON.
    """
    now = json.loads(json.dumps(asdict(config)))
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    before = json.loads(json.dumps(defaults)) | json.loads(saved)
    changed = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in now.items()
        if name not in FREE_SETTINGS and before.get(name) != value
    ]
    if changed:
        raise CheckpointError(
            f"the run in {config.output} was started with other settings ({'; '.join(changed)}). "
            "Resume with the same, or start a new run from its weights with --init."
        )


def check_same_data(config: TrainConfig, state: Mapping[str, Any], vgg: str, counts: Mapping[str, int]) -> None:
    """CheckpointError unless the losses are those of the same VGG-19, wherever its file lies; a warning where there are
    more pictures than there were, or fewer.

    Args:
        config: of the run that would go on.
        state: the checkpoint; one from before these were kept passes.
        vgg: fingerprint of the loss network.
        counts: TrainingPairs.counts.
    """
    if state.get("vgg", vgg) != vgg:
        raise CheckpointError(
            f"the VGG-19 of {config.vgg} is not the one that the run in {config.output} was started with. "
            "Resume with that, or start a new run from its weights with --init."
        )
    before = state.get("pictures", counts)
    changed = [f"{name} {before[name]} -> {count}" for name, count in counts.items() if before[name] != count]
    if changed:
        log.warning(
            "there are other pictures than when the run was saved (%s): it goes on, but not as if it had never stopped",
            ", ".join(changed),
        )

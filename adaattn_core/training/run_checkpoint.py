"""The checkpoint of a training run: its place, its contents, and the check that a run may resume from it."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, DataError
from ..io.files import atomic_path, remove_leftovers
from ..runtime.memory import is_out_of_memory
from .config import TrainConfig

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "latest.pt"
MODEL = "model.safetensors"
"""Paths inside the run folder: the newest checkpoint and the model file."""

REQUIRED_KEYS = frozenset(("step", "config", "model", "ema", "adapters", "optimizer", "skipped"))
CHANGEABLE_SETTINGS = frozenset(
    ("output", "content", "style", "vgg", "init", "refit_attention")
    + ("device", "workers", "compile", "checkpoint_every", "keep_checkpoints", "sample_every", "tensorboard")
)
"""Settings that may be changed when a run is resumed; they do not change what is computed."""


def check_run_folder(folder: Path, resume: bool) -> None:
    """Check the run folder before the work starts, and remove what a killed run has left in it.

    Raises:
        CheckpointError: there is no run to resume.
        DataError: a new run would overwrite another one, or the folder cannot be written to.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise DataError(f"{existing} is a file, and {folder} has to be a folder. Choose another --output.")
    if not os.access(existing, os.W_OK):
        raise DataError(f"{existing} may not be written to. Choose another --output, or change its permissions.")
    has_checkpoint = (folder / CHECKPOINT).is_file()
    if resume and not has_checkpoint:
        raise CheckpointError(f"{folder / CHECKPOINT}: no checkpoint to resume from. Start without --resume.")
    if has_checkpoint and not resume:
        raise DataError(f"{folder} already holds a run. Add --resume to go on, or choose another --output.")
    for name in ("", "checkpoints", "samples"):
        remove_leftovers(folder / name)


def public_settings(config: TrainConfig) -> dict[str, Any]:
    """Settings for the model file, which may be published: of paths only the last part, which reveals no user name."""
    settings = asdict(config)
    paths = {name: Path(settings[name]).name for name in ("content", "style", "vgg", "output", "init", "teacher")}
    return settings | paths


def write_checkpoint(path: Path, state: dict[str, Any], earlier: int | None = None, keep: int = 1) -> None:
    """Write a checkpoint, completely or not at all, and rename the previous one to step-N.pt.

    Args:
        path: latest.pt.
        state: at least REQUIRED_KEYS.
        earlier: step of the checkpoint that is at `path` now; None if there is none.
        keep: number of checkpoints to keep, this one included; older ones are removed after this one is written.
    """
    buffer = BytesIO()  # Python writes the file, as torch.save reports a full disk as an error of its own
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        if keep > 1 and earlier not in (None, state["step"]) and path.is_file():
            _add_name(path, path.with_name(f"step-{earlier:06d}{path.suffix}"))
    for old in _previous_checkpoints(path, state["step"])[: 1 - keep or None]:
        old.unlink()


def _previous_checkpoints(path: Path, step: float = math.inf) -> list[Path]:
    """The previous checkpoints in the folder of latest.pt, the oldest first.

    By their steps, since file times follow a clock that may be set back. Those from `step` on come before all others: a
    run that went back to an earlier checkpoint has left them.
    """
    steps = {int(file.stem[5:]): file for file in path.parent.glob(f"step-*{path.suffix}") if file.stem[5:].isdigit()}
    return [steps[number] for number in sorted(steps, key=lambda number: (number < step, number))]


def _add_name(path: Path, name: Path) -> None:
    """Give a file a second name: a hard link where the file system has them, otherwise a copy."""
    if name.exists() and name.samefile(path):
        return
    with atomic_path(name) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copy2(path, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file written by `write_checkpoint`.

    Raises:
        CheckpointError: the file is incomplete, or no training checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing = REQUIRED_KEYS - state.keys()
    except Exception as error:  # torch raises errors of many kinds on damaged data
        if is_out_of_memory(error):
            raise
        earlier = _previous_checkpoints(path)[-1:]
        advice = f"Start a new run, from {path.parents[1] / MODEL} with --init."
        if earlier:
            advice = f"Copy {earlier[0].name} over it, which was saved before, and --resume."
        raise CheckpointError(f"{path} is damaged or no training checkpoint. {advice}") from error
    if missing:
        raise CheckpointError(f"{path} is no training checkpoint: it has no {', '.join(sorted(missing))}.")
    return dict(state)


def check_same_settings(config: TrainConfig, saved: str) -> None:
    """Check that a run with these settings computes the same as the run that wrote the checkpoint.

    A setting that did not exist when the checkpoint was written counts as its default. `steps` may be raised, which is
    logged.

    Args:
        config: the settings of the run that resumes.
        saved: the config of the checkpoint, as JSON.

    Raises:
        CheckpointError: a setting that affects the result is different.
    """
    now = json.loads(json.dumps(asdict(config)))
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    before = json.loads(json.dumps(defaults)) | json.loads(saved)
    more_steps = config.steps > before["steps"]
    changed = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in now.items()
        if name not in CHANGEABLE_SETTINGS and before.get(name) != value and not (name == "steps" and more_steps)
    ]
    if changed:
        raise CheckpointError(
            f"the run in {config.output} was started with other settings ({'; '.join(changed)}). "
            "Resume with the same, or start a new run from its weights with --init."
        )
    if more_steps:
        log.warning(
            "steps %d -> %d: the run goes on, and its learning rate falls as in a run of %d steps from here on",
            before["steps"], config.steps, config.steps,
        )  # fmt: skip


def check_same_data(config: TrainConfig, state: Mapping[str, Any], vgg: str, counts: Mapping[str, int]) -> None:
    """Check that the VGG-19 is the same, whatever its path; warn if the number of pictures has changed.

    Args:
        config: the settings of the run that resumes.
        state: the checkpoint; an old one without these entries passes.
        vgg: fingerprint of the loss network.
        counts: TrainingPairs.counts.

    Raises:
        CheckpointError: it is another VGG-19.
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

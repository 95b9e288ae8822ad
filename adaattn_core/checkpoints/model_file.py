"""Weights files: our self-describing safetensors.

A model file is one safetensors file with every tensor of the model and, in its metadata, the config that rebuilds
it. Reading is strict: a missing, extra or misshapen tensor is named and refused. Other people's `.pth` files are
read as data only (`weights_only=True`); one that holds anything else is refused and never executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import CheckpointError
from ..io.files import atomic_path
from ..models.config import ModelConfig
from ..models.model import StyleTransferModel

FORMAT = "adaattn"
VERSION = "1"
BUILT_IN = "compact"
BASE = "base"
MODEL_NAMES = (BUILT_IN, BASE)
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
MODEL_FOLDERS_VARIABLE = "ADAATTN_MODELS"


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a safetensors file.

    Raises:
        CheckpointError: no such file, or not a whole safetensors file.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file, or of a `.pth` state dict read as data.

    Raises:
        CheckpointError: no such file, truncated, not a flat dict of tensors, or a pickle with code in it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    _check_exists(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what matters becomes an error below
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle that holds more than tensors, or is damaged; it was not executed. "
            "Get the file from its author as safetensors or as a plain state dict."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is truncated or not a weights file. Download it again.") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds no flat dict of tensors; a state dict is needed.")
    return dict(tensors)


def _opened(path: str | Path) -> safe_open:
    _check_exists(Path(path))
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file. Get it again, or use adaattn convert."
        ) from error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file. Check the path.")


def save_model(
    model: StyleTransferModel,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a model as one self-describing safetensors file, whole or not at all.

    Args:
        model: what to write.
        path: ends in .safetensors.
        dtype: stored precision; float16 halves the file and changes pictures by less than 8 bits show.
        metadata: more to say, such as `trained_on` and `license`.
    """
    about = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": "AdaAttN",
        "config": json.dumps(model.config.to_dict()),
        "channels": json.dumps(model.config.channels),
        **(metadata or {}),
    }
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, metadata=about))  # save_file hides a full disk in an error of its own


def load_model(
    name: str | Path = BUILT_IN, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StyleTransferModel:
    """A model ready to stylise: "compact" (built in), "base" (full size, from the user's folders), or a file.

    Args:
        name: one of MODEL_NAMES, or the path of a file written by `save_model`.
        device: where the weights go.
        dtype: of the decoder; what leads to attention stays in float32, see `StyleTransferModel.set_precision`.

    Returns:
        the model in eval mode, without gradients, in channels_last memory format.

    Raises:
        CheckpointError: unknown name, or a file that is not what it should be.
    """
    path = find_model(name)
    metadata = read_metadata(path)
    model = _model_of(path, metadata)
    # Copies: what lies in the mapped file would keep all of it in memory, beside the weights in their own format.
    weights = {key: value.to(torch.float32, copy=True) for key, value in read_tensors(path).items()}
    load_strict(model, weights, str(path))
    return prepare_for_inference(model.set_precision(dtype), device)


def build_on_meta(config: ModelConfig) -> StyleTransferModel:
    """A model without storage for its weights; made in no time, and drawing nothing from the global generator."""
    with torch.device("meta"):
        return StyleTransferModel(config)


def prepare_for_inference(model: StyleTransferModel, device: str | torch.device = "cpu") -> StyleTransferModel:
    """The model as `stylize` wants it: eval mode, no gradients, channels_last."""
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)


def find_model(name: str | Path) -> Path:
    """Path of the file that `load_model(name)` reads."""
    if str(name) == BUILT_IN:
        return WEIGHTS_FOLDER / "compact.safetensors"
    if str(name) == BASE:
        return _find_base()
    path = Path(name)
    if path.suffix in (".pth", ".pt", ".ckpt"):
        raise CheckpointError(f"{path} is a published checkpoint; make a model file of it with adaattn convert first.")
    if not path.suffix:
        raise CheckpointError(
            f"unknown model {str(name)!r}; known are {', '.join(MODEL_NAMES)}, or a .safetensors file."
        )
    return path


def model_folders() -> list[Path]:
    """Folders searched for full-size models: those of ADAATTN_MODELS (separated as PATH is), then ~/.adaattn."""
    named = os.environ.get(MODEL_FOLDERS_VARIABLE, "")
    return [*(Path(folder) for folder in named.split(os.pathsep) if folder), Path.home() / ".adaattn"]


def _find_base() -> Path:
    candidates = [folder / "adaattn_base.safetensors" for folder in model_folders()]
    for path in candidates:
        if path.is_file():
            return path
    raise CheckpointError(
        f"no full-size model at {' or '.join(map(str, candidates))}. Download the published checkpoints (links in the "
        f"README of github.com/Huage001/AdaAttN) and run: adaattn convert FOLDER --encoder vgg_normalised.pth "
        f"-o {candidates[-1]}"
    )


def _model_of(path: Path, metadata: Mapping[str, str]) -> StyleTransferModel:
    """The model that a file's metadata describes, without weights."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not an AdaAttN model file (no format {FORMAT!r} in its metadata). Use adaattn convert."
        )
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {metadata.get('version')!r}, this library reads {VERSION!r}. Update adaattn."
        )
    try:
        return build_on_meta(ModelConfig.from_dict(json.loads(metadata["config"])))
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} has a config that cannot be read: {error}.") from error


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Make tensors a module's weights; a missing, extra or misshapen one is a CheckpointError that names it."""
    wanted = module.state_dict()
    problems = [f"{name} is missing" for name in wanted.keys() - tensors.keys()]
    problems += [f"{name} does not belong" for name in tensors.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"{source} does not fit the model: {sorted(problems)[0]}{more}. Is it the right file?")
    module.load_state_dict(dict(tensors), assign=True)


def fingerprint(module: torch.nn.Module) -> str:
    """12 hex digits that change with any weight: tells which encoder made some features.

    Of the weights in float16, as files hold them: a model and its copy on disk have the same one.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]

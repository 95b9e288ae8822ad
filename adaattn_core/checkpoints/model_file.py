"""Model files: reading, writing, and finding them by name.

A model file is one safetensors file with every tensor of the model and, in its metadata, the config that rebuilds
it. Reading is strict: a missing, extra or misshapen tensor is an error that names it, and so is one that holds NaN.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import LONGEST_NAME, CheckpointError, printable, quoted
from ..io.files import atomic_path
from ..models.config import ModelConfig
from ..models.model import StyleTransferModel
from ..runtime.device import pick_device
from .tensor_file import checked_float32, read_metadata, read_tensors

log = logging.getLogger(__name__)

FORMAT = "adaattn"
VERSION = "1"
BASE = "base"
COMPACT = "compact"
OLDER_COMPACT = "compact-0.1"
"""The compact model of version 0.1, so that what names it keeps its pictures."""
PUBLISHED = "published"
DEFAULT_MODEL = BASE
BUILT_IN = (BASE, COMPACT, OLDER_COMPACT)
MODEL_NAMES = (*BUILT_IN, PUBLISHED)
PUBLISHED_FILES = ("adaattn_published.safetensors", "adaattn_base.safetensors")
"""Files of the published model in the user's folders; until version 0.1 it was called "base"."""
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
MODEL_FOLDERS_VARIABLE = "ADAATTN_MODELS"
MAX_CONFIG = 10_000
"""Characters of a config; ours have 500."""
VGG_FILE = WEIGHTS_FOLDER / "vgg19.safetensors"
"""VGG-19 with normalised channels in float16; its licence and origin are in the files beside it."""
SHARED_ENCODER = "vgg19"
"""Value of the metadata entry "encoder" of a model file without encoder tensors: its encoder is the one in VGG_FILE."""


def save_model(
    model: StyleTransferModel,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
    share_encoder: bool = False,
) -> None:
    """Write a model as one self-describing safetensors file, completely or not at all.

    Args:
        model: the model to save.
        path: ends in .safetensors.
        dtype: stored precision; float16 halves the file and changes no 8-bit pixel.
        metadata: further entries, such as `trained_on` and `license`.
        share_encoder: leave out the encoder, which must be the built-in VGG-19, and name it in the metadata: 26 MB
            less, for models that ship together.

    Raises:
        OutputError: the folder does not exist, or the file cannot be written.
        ValueError: `share_encoder` with another encoder.
    """
    entries = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": "AdaAttN",
        "config": json.dumps(model.config.to_dict()),
        "channels": json.dumps(model.config.channels),
        **(metadata or {}),
    }
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    if share_encoder:
        tensors = _without_shared_encoder(tensors)
        entries["encoder"] = SHARED_ENCODER
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, metadata=entries))  # save_file reports a full disk without its errno


def load_model(
    name: str | Path = DEFAULT_MODEL, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StyleTransferModel:
    """A model ready for inference: a built-in one by name, "published" (from the user's folders), or a file.

    Args:
        name: one of MODEL_NAMES, or the path of a file written by `save_model`.
        device: of the weights; "auto" is the fastest of this machine.
        dtype: of the decoder; encoder and attention stay in float32, see `StyleTransferModel.set_precision`.

    Returns:
        the model in eval mode, without gradients, in channels_last memory format.

    Raises:
        CheckpointError: an unknown name, or a file that is not a valid model file.
        ValueError: no such device on this machine, or a dtype that is none of torch's.
    """
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype is {dtype!r}; a torch.dtype is needed, such as torch.float16.")
    device = pick_device(str(device))
    path = find_model(name)
    metadata = read_metadata(path)
    model = build_on_meta(config_from_metadata(metadata, path))
    tensors = read_tensors(path)
    if "encoder" in metadata:
        if metadata["encoder"] != SHARED_ENCODER:
            encoder = quoted(metadata["encoder"])
            raise CheckpointError(f"{path} needs the encoder {encoder}, unknown here. Update adaattn.")
        tensors |= _shared_encoder()
    load_strict(model, tensors, str(path))
    return prepare_for_inference(model.set_precision(dtype), device)


def _shared_encoder() -> dict[str, Tensor]:
    """Tensors of the built-in VGG-19 under the names of a model's encoder."""
    tensors = {name: x for name, x in read_tensors(VGG_FILE).items() if not name.endswith(".mean_activation")}
    return {f"encoder.{name if name.startswith('conv0.') else f'layers.{name}'}": x for name, x in tensors.items()}


def _without_shared_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, value in _shared_encoder().items():
        if name not in tensors or not torch.equal(tensors[name].half(), value.half()):
            raise ValueError(f"{name} is not that of the built-in VGG-19; save the model with its encoder")
    return {name: value for name, value in tensors.items() if not name.startswith("encoder.")}


def build_on_meta(config: ModelConfig) -> StyleTransferModel:
    """A model on the meta device: no storage for its weights, no draw from the global generator."""
    with torch.device("meta"):
        return StyleTransferModel(config)


def prepare_for_inference(model: StyleTransferModel, device: str | torch.device = "cpu") -> StyleTransferModel:
    """The model in eval mode, without gradients, in channels_last memory format."""
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)


def find_model(name: str | Path) -> Path:
    """Path of the file that `load_model(name)` reads.

    Raises:
        CheckpointError: an unknown name, a published checkpoint, or no published model in the user's folders.
    """
    if str(name) == BASE and (older := _published_files(PUBLISHED_FILES[1:])):
        log.warning(
            'the model "base" is the built-in full-size model since version 0.2; %s is the model "published"', older[0]
        )
    if str(name) in BUILT_IN:
        return WEIGHTS_FOLDER / f"{name}.safetensors"
    if str(name) == PUBLISHED:
        return _find_published()
    path = Path(name)
    if path.suffix in (".pth", ".pt", ".ckpt"):
        raise CheckpointError(f"{path} is a published checkpoint; make a model file of it with adaattn convert first.")
    if not path.suffix:
        raise CheckpointError(
            f"unknown model {str(name)!r}; known are {', '.join(MODEL_NAMES)}, or a .safetensors file."
        )
    return path


def model_folders() -> list[Path]:
    """Folders searched for the published model: those in ADAATTN_MODELS (separated like PATH), then ~/.adaattn."""
    folders = os.environ.get(MODEL_FOLDERS_VARIABLE, "").split(os.pathsep)
    return [*(Path(folder) for folder in folders if folder), Path(os.path.expanduser("~"), ".adaattn")]


def _published_files(names: Sequence[str] = PUBLISHED_FILES) -> list[Path]:
    """The files of these names in the user's folders, the preferred one first."""
    candidates = [folder / name for folder in model_folders() for name in names]
    return [path for path in candidates if os.path.isfile(path)]


def _find_published() -> Path:
    existing = _published_files()
    if existing:
        return existing[0]
    candidates = [folder / PUBLISHED_FILES[0] for folder in model_folders()]
    raise CheckpointError(
        f"no published model at {' or '.join(map(str, candidates))}. Download the published checkpoints (links in the "
        f"README of github.com/Huage001/AdaAttN) and run: adaattn convert FOLDER --encoder vgg_normalised.pth "
        f"-o {candidates[-1]}"
    )


def config_from_metadata(metadata: Mapping[str, str], path: str | Path) -> ModelConfig:
    """The configuration in the metadata of a model file.

    Raises:
        CheckpointError: it is of another format or version, or the model would be of no use.
    """
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not an AdaAttN model file (no format {FORMAT!r} in its metadata). "
            "Choose a model that AdaAttN has saved."
        )
    if metadata.get("version") != VERSION:
        version = metadata.get("version", "none")[:LONGEST_NAME]
        raise CheckpointError(f"{path} has version {version!r}, this library reads {VERSION!r}. Update adaattn.")
    try:
        text = metadata["config"]
        if len(text) > MAX_CONFIG:
            raise ValueError(f"it has {len(text)} characters, at most {MAX_CONFIG} are read")
        return ModelConfig.from_dict(json.loads(text))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a config that cannot be read: {printable(str(error), 300)}.") from error


def load_strict(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Assign tensors from a file to a module as its weights, copied as float32.

    Args:
        module: on any device; the meta device is fine.
        tensors: one for every entry of the module's state dict.
        source: of the tensors, for error messages.

    Raises:
        CheckpointError: a missing, extra or misshapen tensor, another type than floating point, NaN or infinity; the
            module is unchanged.
    """
    check_shapes(module, tensors, source)
    weights = {name: checked_float32(value, name, source) for name, value in tensors.items()}
    module.load_state_dict(weights, assign=True)


def check_shapes(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Check that tensors have the names and shapes of a module's state dict, before one of them is copied.

    Raises:
        CheckpointError: a missing, extra or misshapen tensor.
    """
    expected = module.state_dict()
    problems = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{quoted(name)} does not belong" for name in tensors.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"{source} does not fit the model: {sorted(problems)[0]}{more}. Is it the right file?")


def fingerprint(module: torch.nn.Module) -> str:
    """12 hex digits of a hash over all weights; features carry that of the encoder that computed them.

    The weights are hashed in float16, the precision of model files, so a model and its saved copy agree.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]

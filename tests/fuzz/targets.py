"""What is fuzzed: for each kind of file, how one is damaged and who reads it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from adaattn_core import load_image, load_model, load_vgg, stylize
from adaattn_core.checkpoints.model_file import config_from_metadata
from adaattn_core.checkpoints.published import SHALLOW_TABLE, rename_tensors
from adaattn_core.checkpoints.tensor_file import read_tensors
from adaattn_core.cli import build_parser
from adaattn_core.commands.info import describe_model
from adaattn_core.commands.train import train_config
from adaattn_core.errors import AdaAttNError
from adaattn_core.io.images import load_alpha, load_mask
from adaattn_core.io.picture_sources import list_pictures
from adaattn_core.models.config import ModelConfig
from adaattn_core.training.dataset import read_picture
from adaattn_core.training.run_checkpoint import read_checkpoint
from tests.fuzz import seeds
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_safetensors, mutate_zip
from tests.helpers.comfy_pack import pack_module
from tests.helpers.small_models import picture, small_model

Data = bytes
Errors = tuple[type[BaseException], ...]


class Target(NamedTuple):
    """One kind of input.

    make: the damaged file of a random generator. read: reads it, from a file of this suffix in an empty folder.
    errors: how reading may fail. share: of all cases.
    """

    make: Callable[[random.Random], Data]
    read: Callable[[Path, random.Random], object]
    suffix: str
    errors: Errors
    share: float = 1.0


def damage(files: Callable[[], Sequence[Data]], mutate: Callable[[Data, random.Random], Data]) -> Any:
    """`Target.make`: one of the files, damaged; one in twenty is left whole."""

    def make(rng: random.Random) -> Data:
        data = rng.choice(files())
        return data if rng.random() < 0.05 else mutate(data, rng)

    return make


def _read_picture(path: Path, rng: random.Random) -> object:
    training: Callable[[Path], object] = partial(read_picture, crop=16)
    readers: list[Callable[[Path], object]] = [load_image, load_image, load_mask, load_alpha, training]
    return rng.choice(readers)(path)


def _read_model(path: Path, rng: random.Random) -> object:
    readers: list[Callable[[str], object]] = [load_model, load_model, load_vgg, describe_model]
    return rng.choice(readers)(str(path))


def _read_state_dict(path: Path, rng: random.Random) -> object:
    if rng.random() < 0.5:
        return load_vgg(path)
    return rename_tensors(read_tensors(path), SHALLOW_TABLE, path)


def _read_run(path: Path, rng: random.Random) -> object:
    (path.parent / "checkpoints").mkdir()
    moved = path.rename(path.parent / "checkpoints" / "latest.pt")
    return read_checkpoint(moved)


def _read_tar(path: Path, rng: random.Random) -> object:
    opened = 0
    for member in list_pictures(path)[:4]:
        try:
            read_picture(member, 16)
            opened += 1
        except AdaAttNError:  # one damaged picture of a set is skipped
            pass
    return opened


def _read_settings(path: Path, rng: random.Random) -> object:
    """As `adaattn train --config` does; the parser ends with code 2 and its line."""
    return train_config(build_parser().parse_args(["train", "--config", str(path)]))


def _settings() -> Sequence[Data]:
    return (seeds.SETTINGS,)


def _mutate_settings(data: Data, rng: random.Random) -> Data:
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    name, _, value = lines[at].partition(" = ")
    lines[at] = f"{name} = {json.dumps(mutate_json(json.loads(value), rng))}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _make_config(rng: random.Random) -> Data:
    config: Any = ModelConfig().to_dict()
    for _ in range(rng.choice((1, 1, 2, 4))):
        config = mutate_json(config, rng)
    return json.dumps(config).encode()


def _read_config(path: Path, rng: random.Random) -> object:
    metadata = {"format": "adaattn", "version": "1", "config": path.read_text()}
    return config_from_metadata(metadata, path)


# ---------------------------------------------------------------- what ComfyUI gives to nodes


SHAPES = ((1, 20, 24, 3), (2, 20, 24, 3), (1, 20, 24, 4), (1, 20, 24, 1), (1, 20, 24, 2), (20, 24, 3), (0, 20, 24, 3),
          (1, 1, 1, 3), (1, 20, 0, 3), (20, 24), (1, 20, 24), (3, 20, 24), (1, 1, 20, 24), (64, 64), ())  # fmt: skip
DTYPES = (torch.float32, torch.float32, torch.float32, torch.float16, torch.float64, torch.uint8, torch.bool)
NUMBERS = (0, 1, -1, 0.5, 2, 1e9, float("nan"), float("inf"), 2**40)


NAMES = ("", ".", "../a", "/etc/passwd", "a" * 300, "a\0b", "\x1b]0;a\x07", "built-in/", "a.pth", "case.safetensors")


def _find(folder: Path, name: str) -> Path | None:
    return folder / name if pack_module("nodes.files").is_there(folder / name) else None


def _tensor(rng: random.Random) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    tensor = torch.rand(rng.choice(SHAPES), generator=generator) * rng.choice((1.0, 1.0, 0.0, 255.0, -1.0, torch.nan))
    return tensor.to(rng.choice(DTYPES))


def _run_nodes(path: Path, rng: random.Random) -> object:
    """What the nodes do with pictures, masks, numbers and names, without ComfyUI."""
    pictures, files = pack_module("nodes.pictures"), pack_module("nodes.files")
    match rng.randrange(4):
        case 0:
            content = pictures.to_pictures(_tensor(rng), "content")
            threshold, feather = rng.choice(NUMBERS), rng.choice((0, 1, 7, 512))
            return pictures.fit_content_mask(_tensor(rng), content, threshold=threshold, feather=feather)
        case 1:
            content, style = (pictures.to_pictures(_tensor(rng), role) for role in ("content", "style"))
            return stylize(small_model(), content, style, strength=rng.choice(NUMBERS))
        case 2:
            mask = _tensor(rng)
            options: dict[str, Any] = {
                name: rng.choice(NUMBERS) for name in ("strength", "temperature") if rng.random() < 0.5
            }
            return stylize(small_model(), picture(20, 24), picture(20, 24), content_mask=mask, **options)
        case _:
            return rng.choice((files.read_model, files.read_encoder))(rng.choice(NAMES), partial(_find, path.parent))


def _no_file(rng: random.Random) -> Data:
    return b""


FILES: Errors = (AdaAttNError,)
PACK: Errors = (AdaAttNError, ValueError, pack_module("adaattn_core.errors").AdaAttNError)

TARGETS: dict[str, Target] = {
    "pictures": Target(damage(seeds.pictures, mutate_bytes), _read_picture, ".png", FILES, 3),
    "safetensors": Target(damage(seeds.model_files, mutate_safetensors), _read_model, ".safetensors", FILES, 2),
    "pth": Target(damage(lambda: seeds.state_dicts(True), mutate_zip), _read_state_dict, ".pth", FILES, 2),
    "legacy pth": Target(damage(lambda: seeds.state_dicts(False), mutate_bytes), _read_state_dict, ".pth", FILES),
    "training runs": Target(damage(lambda: seeds.state_dicts(True), mutate_zip), _read_run, ".pt", FILES),
    "tar": Target(damage(seeds.tar_files, mutate_bytes), _read_tar, ".tar", FILES),
    "model configs": Target(_make_config, _read_config, ".json", FILES),
    "settings": Target(damage(_settings, _mutate_settings), _read_settings, ".toml", (ValueError, SystemExit)),
    "node inputs": Target(_no_file, _run_nodes, ".safetensors", PACK),
}

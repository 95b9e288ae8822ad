"""The page and all that it loads, as one table from paths to contents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from ..checkpoints.model_file import find_model, load_model
from ..checkpoints.tensor_file import read_metadata
from ..export.staged import staged_files
from ..io.files import atomic_path
from ..models.encoder import receptive_field, stride
from ..models.model import StyleTransferModel
from ..viewer.view_page import FOLDER as VIEWER_FOLDER
from .web_runtime import FILES, VERSION

PAGE_FOLDER, PICTURE_FOLDER = (Path(__file__).parent / name for name in ("page", "pictures"))
WORKER, PLACE_OF_VERSION = "service-worker.js", "VERSION_OF_THE_SITE"
INDEX, DESCRIPTION = "index.html", "site.json"
HANDED_ON = ("license", "trained_on")
"""Entries of a model file that its graphs have too."""

STYLES = {
    "great_wave": "Hokusai, The Great Wave off Kanagawa",
    "auvers": "Van Gogh, Village Street in Auvers",
    "composition_viii": "Kandinsky, Composition VIII",
    "poppies": "Hokusai, Poppies",
    "moulin": "Renoir, Bal du moulin de la Galette",
    "summertime": "Cassatt, Summertime",
    "harvesters": "Bruegel, The Harvesters",
    "kazusa": "Hokusai, Kazusa Sea Route",
}
PHOTOS = {"coffee": "Cup of coffee, Rachel Michetti", "astronaut": "Eileen Collins, NASA"}

Site = dict[str, bytes | Path]
"""Path relative to the page, with slashes -> content, or the file that holds it."""


def build_site(model: str | Path, runtime: Path, *, is_local: bool) -> Site:
    """All files of the page.

    Args:
        model: see `load_model`; with attention at three levels.
        runtime: folder of `find_runtime`.
        is_local: the page is shown by this machine's own server, and not kept for times without a connection.

    Raises:
        CheckpointError: no model by this name, or a damaged file.
        ValueError: a model with one level, or the package onnx is not installed.
    """
    loaded = load_model(model)
    metadata = {name: value for name, value in read_metadata(find_model(model)).items() if name in HANDED_ON}
    site: Site = {path.name: path for path in PAGE_FOLDER.iterdir() if path.is_file()}
    site |= {f"viewer/{path.name}": path for path in VIEWER_FOLDER.glob("*.mjs")}
    site |= {f"pictures/{name}.jpg": PICTURE_FOLDER / f"{name}.jpg" for name in (*STYLES, *PHOTOS)}
    site |= {f"models/{stage}.onnx": file for stage, file in staged_files(loaded, metadata).items()}
    site |= {f"runtime/{name}": runtime / name for name in FILES}
    description = {**describe(loaded), "local": is_local}
    site[DESCRIPTION] = json.dumps(description).encode()
    worker = content(site[WORKER]).decode()
    site[WORKER] = worker.replace(PLACE_OF_VERSION, fingerprint(site)).encode()
    return site


def describe(model: StyleTransferModel) -> dict[str, Any]:
    """What the page has to know: pictures with their titles, and the model's levels, for the attention."""
    return {
        "runtime": VERSION,
        "styles": [{"name": name, "title": title} for name, title in STYLES.items()],
        "photos": [{"name": name, "title": title} for name, title in PHOTOS.items()],
        "levels": [
            {
                "name": level,
                "stride": stride(level),
                "cell": model.fusion.level_attention(level).cell,
                "receptive_field": receptive_field(model.config.encoder_convs, level),
            }
            for level in model.config.levels
        ],
    }


def content(entry: bytes | Path) -> bytes:
    return entry if isinstance(entry, bytes) else entry.read_bytes()


def fingerprint(site: Site) -> str:
    """Changes with every change of any file."""
    digest = hashlib.sha256()
    for path in sorted(site):
        digest.update(f"{path}\0".encode() + hashlib.sha256(content(site[path])).digest())
    return digest.hexdigest()[:16]


def write_site(site: Site, folder: Path) -> None:
    """Writes the files below a folder, each completely or not at all, and the page itself last.

    Raises:
        OutputError: a file cannot be written.
    """
    for path in sorted(site, key=lambda path: path == INDEX):
        target = folder / PurePosixPath(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content(site[path]))

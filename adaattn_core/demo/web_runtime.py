"""ONNX Runtime for the web: the files of one pinned version, downloaded once and kept in the user's cache folder."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from ..errors import DownloadError, OutputError
from ..io.files import TEMPORARY, error_reason
from ..runtime.progress import progress_bar

VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the archive, in base64 as the registry states it."""
FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""What the page loads of the archive's folder dist: three files for the processor, three for WebGPU."""
MEMBERS = "package/dist"

TIMEOUT_SECONDS = 30
PIECE = 2**18
"""Bytes that are read at a time."""


def cache_folder() -> Path:
    """Where this user's programs keep what they can fetch again."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "adaattn"


def runtime_folder() -> Path:
    """The folder of this version, whether it is there or not."""
    return cache_folder() / f"onnxruntime-web-{VERSION}"


def is_present(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def find_runtime() -> Path:
    """The folder with the files of the runtime.

    Raises:
        DownloadError: it has not been downloaded.
    """
    folder = runtime_folder()
    if not is_present(folder):
        raise DownloadError(
            f"the page needs ONNX Runtime for the web {VERSION}, which is not in {folder}. Run adaattn demo "
            "--get-runtime once, with a connection: it downloads 33 MB."
        )
    return folder


def get_runtime() -> Path:
    """`find_runtime`, after a download where the files are missing: all of them or none.

    Raises:
        DownloadError: no connection, or other bytes than those of the pinned version.
        OutputError: the cache folder cannot be written.
    """
    folder = runtime_folder()
    if is_present(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder.parent) as work:
            archive = Path(work, "archive.tgz")
            _download(archive)
            unpacked = Path(work, "files")
            unpacked.mkdir()
            _unpack(archive, unpacked, FILES)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(unpacked, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error_reason(error)
        raise OutputError(
            f"{folder} cannot be written: {reason}. Free some space there, or set XDG_CACHE_HOME to another folder."
        ) from error
    return folder


def _download(target: Path) -> None:
    """The archive as a file, checked by its hash."""
    digest = hashlib.sha512()
    try:
        with urllib.request.urlopen(ADDRESS, timeout=TIMEOUT_SECONDS) as answer, target.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0) or None
            with progress_bar(total, unit="byte") as bar:
                while piece := answer.read(PIECE):
                    digest.update(piece)
                    file.write(piece)
                    bar.update(len(piece))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DownloadError(
            f"ONNX Runtime for the web could not be downloaded from {ADDRESS} ({error_reason(error)}). Check the "
            "connection and try again; nothing was kept."
        ) from error
    if base64.b64encode(digest.digest()).decode() != SHA512:
        raise DownloadError(
            f"{ADDRESS} gave other bytes than those of version {VERSION}, by their SHA-512. Nothing was kept. Try "
            "again, or on another network: a proxy may have changed them."
        )


def _unpack(archive: Path, folder: Path, names: Iterable[str]) -> None:
    """Files of the archive's folder dist, under their own names; nothing else of it is written."""
    with tarfile.open(archive) as opened:
        for name in names:
            member = opened.extractfile(f"{MEMBERS}/{name}")
            assert member is not None, name  # the hash has shown that it is this archive
            with (folder / name).open("wb") as file:
                shutil.copyfileobj(member, file)

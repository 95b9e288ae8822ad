"""Tensors in files that anybody may have made: `.safetensors`, and `.pth` state dicts read as data.

What a file may cost is bounded before it is read: descriptions of tensors are short, tensors are mapped into memory
and not copied, and a pickle is searched for what it would import before torch sees it. Only `checked_float32` copies.
"""

from __future__ import annotations

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, quoted
from ..io.file_kinds import HEAD_BYTES, is_torch_archive, wrong_kind

MAX_HEADER_BYTES = 4 * 2**20
"""Longest description of the tensors in a file: names, shapes and metadata. VGG-19's takes 10 kB."""
MAX_OPCODES = 200_000
"""Longest program of a pickle. A state dict takes some twenty opcodes for each tensor."""
LEGACY_PICKLES = 5
"""Pickles at the start of a file of torch before 1.6: magic number, protocol, machine, state dict and storage names."""
ZIP_SIGNATURE = b"PK\x03\x04"
STATE_DICT_GLOBALS = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch (\w+Storage|Size)"
    r"|_codecs encode"  # as Python 3 pickles bytes for Python 2
)
"""What the pickle of a state dict may import, as "module name"."""

NO_STATE_DICT = (
    "is a pickle that holds more than tensors, or is damaged; it was not executed. "
    "Get the file from its author as safetensors or as a plain state dict."
)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a safetensors file.

    Raises:
        CheckpointError: no such file, or not a complete safetensors file.
    """
    with _open_safetensors(path) as file:
        return dict(file.metadata() or {})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file, or of a `.pth` state dict read as data.

    They may be of any shape, type and value; `checked_float32` and `load_strict` check that. Where the format allows
    it they share the mapped file: copy what is kept.

    Raises:
        CheckpointError: no such file, truncated, not a flat dict of tensors, or a pickle with code in it.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as file:
            return {name: _safetensor(file, name, path) for name in file.keys()}  # noqa: SIM118 (not a dict)
    _check_exists(path)
    try:
        with path.open("rb") as stream:
            is_zip = stream.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE
            stream.seek(0)
            check = _check_zip if is_zip else _check_legacy
            check(stream, path)
        return _state_dict(path, is_zip)
    except CheckpointError as error:
        raise _named_kind(path) or error from error


def checked_float32(tensor: Tensor, name: str, source: str) -> Tensor:
    """A copy of a tensor from a file as float32: the one check of its type and values. Check its shape first.

    Raises:
        CheckpointError: it is not of a floating-point type, or holds NaN or infinity.
    """
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{source}: {quoted(name)} is {kind}, not floating-point numbers. Is it the right file?")
    values = tensor.detach().to(torch.float32, copy=True)
    if not bool(values.isfinite().all()):
        raise CheckpointError(
            f"{source}: {quoted(name)} holds NaN or infinity, and so would every picture. Get the file again, or an "
            "earlier save of the training."
        )
    return values


# ---------------------------------------------------------------- safetensors


def _open_safetensors(path: str | Path) -> safe_open:
    _check_exists(Path(path))
    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if MAX_HEADER_BYTES < header < os.path.getsize(path):
            raise CheckpointError(
                f"{path} describes its tensors in {header / 2**20:.0f} MiB; at most {MAX_HEADER_BYTES // 2**20} are "
                "read, and weights need far less. Is it the right file?"
            )
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise _named_kind(Path(path)) or CheckpointError(
            f"{path} is truncated or no safetensors file. Get it again."
        ) from error


def _named_kind(path: Path) -> CheckpointError | None:
    """An error that says what a file is which could not be read as weights, if that can be told.

    Never asked before reading fails: the first bytes of weights are a length, and may look like anything.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(ZIP_SIGNATURE) and is_torch_archive(path):
        if path.suffix != ".safetensors":
            return None
        advice = "Name it .pth, beside the other published files."
        return CheckpointError(f"{path} is a PyTorch checkpoint and no safetensors file. {advice}")
    if head[8:10] == b'{"' and path.suffix != ".safetensors":
        return CheckpointError(f"{path} is a safetensors file. Name it .safetensors.")
    kind = wrong_kind(head)
    return CheckpointError(f"{path} {kind}") if kind else None


def _safetensor(file: safe_open, name: str, path: Path) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)  # type: ignore[no-untyped-call]
    except Exception as error:  # of several kinds, for types that this torch does not have
        kind = file.get_slice(name).get_dtype()  # type: ignore[no-untyped-call]
        raise CheckpointError(
            f"{path}: {quoted(name)} is {kind}, which cannot be read. Store it as F16 or F32."
        ) from error
    return tensor


# ---------------------------------------------------------------- pickles


def _state_dict(path: Path, is_zip: bool) -> dict[str, Tensor]:
    """The state dict of a file that `_check_zip` or `_check_legacy` has passed.

    Mapped, a zip file gives no tensor more bytes than it holds; torch's other way to read it trusts their number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; real problems become errors below
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises errors of many kinds on damaged data
        raise CheckpointError(f"{path} is truncated or not a weights file. Download it again.") from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu
        for name, value in tensors.items()
    ):
        raise CheckpointError(f"{path} holds no flat dict of tensors; a state dict is needed.")
    return dict(tensors)


def _check_zip(stream: IO[bytes], path: Path) -> None:
    """Refuse an archive whose reading would cost more than its size, or whose pickle is not that of a state dict."""
    try:
        with zipfile.ZipFile(stream) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(f"{path} is compressed, which torch.save never does. Download it again.")
                if info.filename.endswith("data.pkl"):
                    with archive.open(info) as pickle:
                        _check_pickle(pickle, path)
    except CheckpointError:
        raise
    except Exception as error:  # BadZipFile, and many others on damaged data
        raise CheckpointError(f"{path} is truncated or not a weights file. Download it again.") from error


def _check_legacy(stream: IO[bytes], path: Path) -> None:
    for _ in range(LEGACY_PICKLES):
        _check_pickle(stream, path)
        if not stream.peek(1):  # type: ignore[attr-defined]  # a plain pickle, which torch refuses in its own words
            return


def _check_pickle(stream: IO[bytes], path: Path) -> None:
    """Read a pickle without executing it, and refuse what a state dict does not need.

    Raises:
        CheckpointError: it imports anything else, is very long, or is no pickle.
    """
    start = stream.tell()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4") and not (
                opcode.name == "GLOBAL" and STATE_DICT_GLOBALS.fullmatch(str(argument))
            ):
                raise CheckpointError(f"{path} {NO_STATE_DICT}")
            if count > MAX_OPCODES or (position or 0) - start > MAX_HEADER_BYTES:
                raise CheckpointError(f"{path} holds more than the tensors of a network. Is it the right file?")
    except CheckpointError:
        raise
    except Exception as error:  # ValueError, and others on damaged data
        raise CheckpointError(f"{path} is truncated or not a weights file. Download it again.") from error


def _check_exists(path: Path) -> None:
    if not os.path.isfile(path):  # Path.is_file raises an error for names that are too long
        raise CheckpointError(f"{path}: no such weights file. Check the path.")

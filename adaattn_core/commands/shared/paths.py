"""Paths of the command line: inputs that are pipes, and checks of outputs."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Iterable
from pathlib import Path

from ...errors import OutputError
from ...io.files import error_reason, is_stream, remove_leftovers, stream_descriptor
from ...io.images import output_format

STDIN, STDOUT = "/dev/stdin", "/dev/stdout"


# Inputs


def input_path(text: str) -> str:
    """The type of the value of an option that names an input: a path, `-` for standard input, or a pipe.

    A pipe can be read once, and pictures and clips are read more than once. So its bytes are copied to a temporary file
    without a name, which takes the place of the pipe.
    """
    path = STDIN if text == "-" else text
    if stream_descriptor(path) is None and not _is_pipe(path):
        return path
    if path == STDIN and sys.stdin is not None and sys.stdin.isatty():
        raise ArgumentTypeError("standard input is a terminal; a file is needed. Redirect one into it, or name it")
    try:
        return _copy(path)
    except OSError as error:
        raise ArgumentTypeError(f"{text} cannot be read: {error_reason(error)}") from error


def _is_pipe(path: str) -> bool:
    return is_stream(path) and (Path(path).is_fifo() or Path(path).is_socket())


def _copy(path: str) -> str:
    """A path of a copy of a pipe; of a descriptor its own path, which leads to the copy from now on."""
    descriptor = stream_descriptor(path)
    reopens = os.path.isdir("/proc/self/fd")  # on Linux opening /dev/fd/N starts at the beginning of the file
    with tempfile.TemporaryFile() if reopens else tempfile.NamedTemporaryFile(prefix="adaattn-", delete=False) as copy:
        with open(path if descriptor is None else os.dup(descriptor), "rb") as pipe:
            shutil.copyfileobj(pipe, copy)
        copy.flush()
        if not reopens:
            atexit.register(os.unlink, copy.name)
            return str(copy.name)
        os.lseek(copy.fileno(), 0, os.SEEK_SET)
        if descriptor is None:  # open as long as the process runs
            return f"/dev/fd/{os.dup(copy.fileno())}"
        os.dup2(copy.fileno(), descriptor)
        return path


# Outputs


def output_path(text: str) -> str:
    """The type of the value of -o: a path, or `-` for standard output."""
    if text != "-":
        return text
    if sys.stdout is not None and sys.stdout.isatty():
        raise ArgumentTypeError("standard output is a terminal; redirect it into a file or a program")
    return STDOUT


def report(line: str, output: str | Path) -> None:
    """Prints a summary, to standard error if standard output is the result itself."""
    print(line, file=sys.stderr if stream_descriptor(output) == 1 else sys.stdout)


def check_output(path: str | Path) -> None:
    """Raises an ImageError or OutputError if a picture cannot be written to `path`; called before any work starts."""
    output_format(path)
    if is_stream(path):  # its temporary file is in the folder of temporary files
        remove_leftovers(tempfile.gettempdir())
    else:
        check_folder(Path(path).parent)


def check_folder(folder: Path) -> None:
    """Raises an OutputError if `folder` is not a writable folder; removes what killed runs have left in it."""
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder, so the output cannot be written there. Create the folder first.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} is not writable. Choose another folder, or change its permissions.")
    remove_leftovers(folder)


def make_folder(folder: Path) -> None:
    """Creates an output folder if it does not exist; its parent has to exist.

    Raises:
        OutputError: `folder` is a file, its parent does not exist, or it is not writable.
    """
    check_can_make(folder)
    folder.mkdir(exist_ok=True)
    check_folder(folder)


def check_can_make(folder: Path) -> None:
    """Raises the OutputError that `make_folder` would, without making the folder: before work that may fail."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; a folder is needed for the output. Choose another name.")
    check_folder(folder if folder.exists() else folder.parent)


def check_no_input_among(outputs: Iterable[Path], inputs: Iterable[str | Path], kind: str = "pictures") -> None:
    """Raises an OutputError if an output would overwrite an input; `kind` is the plural noun for the inputs."""
    input_ids = {_file_id(path) for path in inputs} - {None}
    for path in outputs:
        if not is_stream(path) and _file_id(path) in input_ids:
            raise OutputError(f"{path} is one of the input {kind} and would be overwritten. Choose another output.")


def _file_id(path: str | Path) -> tuple[int, int] | None:
    """Device and inode, which are equal for all names of one file; None if there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def refusal(path: Path) -> str | None:
    """The reason in one line why a result cannot be written to `path`, whose folder is made; None if it can."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_symlink() and path.is_dir():
            return f"{path} is a folder, so the result cannot be written there. Rename the folder or the picture."
        os.lstat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{path} cannot be written: {error_reason(error)}. Rename the picture."
    return None

"""Output files that are written completely or not at all, and outputs that are streams: pipes, standard output."""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

if sys.platform != "win32":
    import fcntl

StrPath = str | os.PathLike[str]

TEMPORARY = ".adaattn-"
"""Beginning of the names of temporary files and folders, by which `remove_leftovers` knows them."""
_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/self/fd)/(\d+)")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def wrong_suffix(path: StrPath, suffix: str, known: Iterable[str]) -> str:
    """The message about an output whose suffix is not one of those that can be written."""
    came = f"ends in {suffix!r}" if suffix else "has no suffix"
    return f"{path} {came}; one of {', '.join(known)} is needed. Rename the output."


@contextmanager
def atomic_path(path: StrPath, error_type: type[OutputError] = OutputError) -> Iterator[Path]:
    """A temporary path to write to, in the folder of `path` and with its suffix; renamed to `path` on success.

    The bytes are on the disk before the rename, and a file that is replaced hands on its permissions and its owner. If
    the block ends early (Ctrl-C included), the temporary file is removed and an existing `path` is unchanged. The
    result of a stream (`is_stream`) is copied to it when it is complete.

    Raises:
        OutputError, or `error_type`: the folder does not exist, or the file cannot be written (disk full, no
            permission). OSErrors about other files pass through.
    """
    check_output_path(path, error_type)
    stream = is_stream(path)
    target = Path(os.path.realpath(path))  # a link stays a link
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    temporary = folder / f"{TEMPORARY}{secrets.token_hex(4)}{Path(path).suffix}"
    with folder_in_use(folder):
        try:
            before = None if stream else _claim(target, temporary)
            yield temporary
            _finish(temporary, before)
            _copy_to_stream(temporary, path) if stream else os.replace(temporary, target)
        except OSError as error:
            if isinstance(error, BrokenPipeError) or str(error.filename) not in ("None", str(temporary)):
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise error_type(f"disk full while writing {path}. Free some space or choose another disk.") from error
            raise error_type(f"{path} cannot be written: {error_reason(error)}. Choose another folder.") from error
        finally:
            with suppress(OSError):
                temporary.unlink()


def _claim(target: Path, temporary: Path) -> os.stat_result | None:
    """The status of the file that will be replaced; the temporary file is made with its permissions, which may be
    stricter than those of a new file."""
    try:
        before = os.stat(target)
    except OSError:
        return None
    os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, stat.S_IMODE(before.st_mode) | stat.S_IWUSR))
    return before


def _finish(temporary: Path, before: os.stat_result | None) -> None:
    """Forces the bytes to the disk, so that no empty file stands there after a power failure; hands on permissions."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    if before is not None:
        if sys.platform != "win32":
            with suppress(OSError):  # only the administrator may give files away
                os.chown(temporary, before.st_uid, before.st_gid)
        os.chmod(temporary, stat.S_IMODE(before.st_mode))


@contextmanager
def folder_in_use(folder: StrPath) -> Iterator[None]:
    """Keeps other processes from taking temporary files in `folder` for leftovers during the block."""
    descriptor = _lock(folder, shared=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


RUNNING = ".running"
"""The file in the folder of a run whose lock its process holds; it names the process."""


@contextmanager
def sole_writer(folder: Path, work: str) -> Iterator[None]:
    """Keeps a second process from the same work in a folder, which is made where it is missing.

    The lock ends with the process, also after kill -9. On Windows and on file systems without locks, it does nothing.

    Args:
        folder: of the run.
        work: what the process does there, as a verb: "trains".

    Raises:
        OutputError: another process holds the folder; the message names it.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = None if sys.platform == "win32" else _lock_file(folder / RUNNING, folder, work)
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / RUNNING).unlink(missing_ok=True)
            os.close(descriptor)
        if made:
            with suppress(OSError):  # it holds what the run has made
                folder.rmdir()


def _lock_file(path: Path, folder: Path, work: str) -> int | None:
    """The descriptor of a locked file that names this process; None on a file system without locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 500, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise OutputError(
                f"{folder} is in use: {owner} {work} there. Wait until it has ended, or choose another --output."
            ) from None
        except OSError:
            os.close(descriptor)
            return None
        if is_named(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
            return descriptor
        os.close(descriptor)  # its owner has just removed the file: the next one is locked


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def remove_leftovers(folder: StrPath) -> None:
    """Removes temporary files and folders of processes that were killed, unless a running process writes in `folder`.

    On a file system without locks of folders (some network shares) nothing is removed.
    """
    try:
        leftovers = [path for path in Path(folder).iterdir() if path.name.startswith(TEMPORARY)]
    except OSError:
        return
    descriptor = _lock(folder, shared=False) if leftovers else None
    if leftovers and (descriptor is not None or sys.platform == "win32"):  # Windows removes no open file
        for path in leftovers:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if descriptor is not None:
        os.close(descriptor)


def _lock(folder: StrPath, shared: bool) -> int | None:
    """The descriptor of a folder with a lock, which ends with the descriptor or the process; None without a lock."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def check_output_path(path: StrPath, error_type: type[OutputError] = OutputError) -> None:
    """Raises `error_type` if `path` cannot be an output: no such folder, a name too long, or a folder by this name."""
    if is_stream(path):
        descriptor = stream_descriptor(path)
        if descriptor is not None and not _is_open(descriptor):
            raise error_type(f"{path} is not open. Redirect it, or name a file.")
        return
    folder, name = Path(path).parent, Path(path).name
    if not os.path.isdir(folder):
        raise error_type(f"{folder} is not a folder, so {path} cannot be written. Create the folder first.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise error_type(f"{path} is not a file, so it cannot be overwritten. Name a file.")
    length, limit = len(os.fsencode(name)), longest_name(folder)
    if length > limit:
        raise error_type(f"{path} has a name of {length} bytes; at most {limit} fit there. Choose a shorter name.")


def longest_name(folder: StrPath) -> int:
    """The bytes that the name of a file in `folder` may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return 255


def is_stream(path: StrPath) -> bool:
    """Whether `path` is a pipe, a device or an open descriptor (/dev/stdout, /dev/fd/N) instead of a file or folder."""
    if stream_descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def stream_descriptor(path: StrPath) -> int | None:
    """The number of the open descriptor that `path` names.

    >>> stream_descriptor("/dev/stdout"), stream_descriptor("/dev/fd/63"), stream_descriptor("out.png")
    (1, 63, None)
    """
    text = os.fspath(path)
    found = _DESCRIPTOR.fullmatch(text)
    return int(found[1]) if found else _STANDARD.get(text)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _copy_to_stream(file: Path, path: StrPath) -> None:
    descriptor = stream_descriptor(path)
    with file.open("rb") as source, open(path if descriptor is None else os.dup(descriptor), "wb") as stream:
        shutil.copyfileobj(source, stream)


def error_reason(error: Exception) -> str:
    """The message of an error in one line; the name of its class if it has no message."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(message.split()) or type(error).__name__

"""Results that a running process paints: a second run that would paint them too is refused, and told of the first."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...errors import OutputError
from ...io.files import RUNNING, is_named

if sys.platform != "win32":
    import fcntl

CLAIM = f"{RUNNING}-"
"""Beginning of the names of the files that list the results of a running process, which holds their lock."""
GATE = f"{RUNNING}.gate"
"""The file whose lock a process holds while it reads and writes claims."""


@contextmanager
def claimed(folder: Path, outputs: Sequence[Path]) -> Iterator[None]:
    """Keeps other processes from painting the same results; they may paint others into the same folder.

    So the processes of one job, whose shares are disjoint, work side by side. A claim ends with its process, also after
    kill -9. On Windows and on file systems without locks, nothing is claimed.

    Args:
        folder: of the results, which exists.
        outputs: results in `folder` or below it.

    Raises:
        OutputError: another process paints one of them; the message names it.
    """
    names = {os.fsencode(os.path.relpath(path, folder)) for path in outputs}
    claim = folder / f"{CLAIM}{secrets.token_hex(4)}"
    descriptor = None
    try:
        with _gate(folder) as is_locked:
            if is_locked and names:
                _check_others(folder, names)
                descriptor = _write_claim(claim, names)
        yield
    finally:
        if descriptor is not None:
            claim.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def _gate(folder: Path) -> Iterator[bool]:
    """Lets one process at a time into the block; yields whether there are locks."""
    if sys.platform == "win32":
        yield False
        return
    while True:
        descriptor = os.open(folder / GATE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            is_locked = True
        except OSError:
            is_locked = False
        if not is_locked or is_named(descriptor, folder / GATE):  # else the process before has just removed the file
            break
        os.close(descriptor)
    try:
        yield is_locked
    finally:
        (folder / GATE).unlink(missing_ok=True)
        os.close(descriptor)


def _write_claim(claim: Path, names: set[bytes]) -> int:
    """The descriptor of a new file that lists `names`, which holds its lock."""
    descriptor = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    owner = f"process {os.getpid()} on {platform.node()}".encode()
    claim.write_bytes(b"\0".join([owner, *sorted(names)]))
    return descriptor


def _check_others(folder: Path, names: set[bytes]) -> None:
    """Raises an OutputError if a running process claims one of `names`; removes the claims of those that are gone."""
    for path in folder.glob(f"{CLAIM}*"):
        try:
            with path.open("rb") as file:
                if _is_abandoned(file.fileno()):
                    path.unlink(missing_ok=True)
                    continue
                owner, *taken = file.read().split(b"\0")
        except FileNotFoundError:  # its process has ended
            continue
        if common := sorted(names.intersection(taken)):
            raise OutputError(
                f"{folder} is in use: {owner.decode(errors='replace')} paints {len(common)} of these {len(names)} "
                f"results, such as {folder / os.fsdecode(common[0])}. Wait until it has ended, name another folder, or "
                "start one run in several processes with torchrun."
            )


def _is_abandoned(claim: int) -> bool:
    """Whether the process that wrote an open claim is gone."""
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

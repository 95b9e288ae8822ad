"""Runs fuzz cases in this process, and says which of them end as no case may.

A case may succeed, or end in an error of ours with one printable line. It may not end in another exception, take more
than SECONDS or MEMORY, or write outside its folder.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from adaattn_core.io import decoding
from tests.fuzz.targets import TARGETS, Target

SECONDS = 10
MEMORY = 256 * 2**20
"""Bytes that one case may take: its files are small, and pictures are limited to MAX_PIXELS while the cases run."""
MAX_PIXELS = 2**20
LONGEST_LINE = 2000


class Finding(NamedTuple):
    """A case that ended badly."""

    target: str
    number: int
    problem: str

    def __str__(self) -> str:
        return f"{self.target} {self.number}: {self.problem}"


class TooSlow(BaseException):
    """A case took more than SECONDS. No code catches it by accident."""


class Watch:
    """Notes what a case writes outside its folder, starts, or connects to, by Python's audit events."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect", "os.posix_spawn"):
            self.seen.append(f"{event} {arguments[0]!r}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate", "os.chmod"):
            self._note(event, arguments[0])
        elif event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if writes:
                self._note(event, path)

    def _note(self, event: str, path: object) -> None:
        inside = isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(str(self.folder))
        if not inside and not isinstance(path, int) and os.fspath(path) != os.devnull:  # type: ignore[call-overload]
            self.seen.append(f"{event} {path!r}")


WATCH = Watch()


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    WATCH.folder, WATCH.seen = str(folder), []
    try:
        yield WATCH.seen
    finally:
        WATCH.folder = None


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raises TooSlow in the main thread; code that never returns to Python is ended by the caller's own limit."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Peak:
    """Memory that this process takes beyond what it has now; Linux only, elsewhere 0."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._read("VmRSS")

    def bytes(self) -> int:
        return self._read("VmHWM") - self.before

    def _read(self, name: str) -> int:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return 0
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def run_case(name: str, number: int, data: bytes | None = None) -> Finding | None:
    """Runs one case; the same number is the same case, always.

    Args:
        name: of the target.
        number: of the case.
        data: the file, in place of the one that the number gives.
    """
    rng = random.Random(f"{name} {number}")
    target = TARGETS[name]
    made = target.make(rng)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "MAX_PIXELS", MAX_PIXELS)
        path = Path(folder, f"case{target.suffix}")
        path.write_bytes(made if data is None else data)
        peak = Peak()
        with watched(Path(folder)) as written:
            problem = _read(target, path, rng)
        if peak.bytes() > MEMORY:
            problem = problem or f"took {peak.bytes() / 2**20:.0f} MiB"
        problem = problem or "; ".join(written)
    return Finding(name, number, problem) if problem else None


def _read(target: Target, path: Path, rng: random.Random) -> str:
    """Why the case ended badly, or nothing."""
    spoken = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(spoken), time_limit(SECONDS):
            warnings.simplefilter("ignore")  # Pillow's, about damage
            target.read(path, rng)
        return ""
    except TooSlow:
        return f"took more than {SECONDS} seconds"
    except target.errors as error:
        return _wrong_line(spoken.getvalue().rstrip("\n") if isinstance(error, SystemExit) else str(error))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:300]}"


def _wrong_line(line: str) -> str:
    if not line or not line.isprintable() or len(line) > LONGEST_LINE + 200:
        return f"an error without one printable line: {line[:300]!r}"
    return ""


def plan(cases: int) -> list[tuple[str, range]]:
    """The numbers of the cases of each target."""
    total = sum(target.share for target in TARGETS.values())
    return [(name, range(math.ceil(cases * target.share / total))) for name, target in TARGETS.items()]

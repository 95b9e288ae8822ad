"""500 damaged files and hostile values, the cases that were found earlier, and the net itself: it has to catch."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adaattn_core.errors import ImageError
from tests.fuzz import runner, targets
from tests.fuzz.runner import plan, run_case
from tests.fuzz.targets import TARGETS, Target

FOUND = Path(__file__).parent / "found"
"""Files of cases that once ended badly: TARGET/NAME, with the blanks of a target's name as `_`."""


@pytest.mark.parametrize(("name", "numbers"), plan(500), ids=list(TARGETS))
def test_each_case_succeeds_or_ends_in_a_line_of_ours(name: str, numbers: range) -> None:
    findings = [finding for number in numbers if (finding := run_case(name, number))]
    assert findings == [], "\n".join(map(str, findings))


@pytest.mark.parametrize("file", sorted(FOUND.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_was_found_earlier_ends_well(file: Path) -> None:
    """Each reader of the target reads the file: the numbers of the cases choose among them."""
    name = file.parent.name.replace("_", " ")
    findings = [run_case(name, number, file.read_bytes()) for number in range(12)]
    assert not any(findings), findings


def test_a_case_is_always_the_same() -> None:
    for name, target in TARGETS.items():
        first, second = (target.make(random.Random(f"{name} 3")) for _ in range(2))
        assert first == second, name


def allocate(path: Path, rng: random.Random) -> object:
    return torch.ones(100 * 2**20, dtype=torch.uint8)


def fail(error: BaseException) -> Callable[[Path, random.Random], object]:
    def read(path: Path, rng: random.Random) -> object:
        raise error

    return read


def write_outside(path: Path, rng: random.Random) -> object:
    return (path.parents[1] / "adaattn-fuzz-outside.txt").write_text("")


def sleep(path: Path, rng: random.Random) -> object:
    time.sleep(30)
    return None


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (fail(KeyError("a")), "KeyError: 'a'"),
        (fail(SystemExit(1)), "SystemExit: 1"),
        (fail(ImageError("")), "an error without one printable line: ''"),
        (write_outside, "open "),
        (sleep, "took more than 1 seconds"),
        pytest.param(
            allocate, "took 1", marks=pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux only")
        ),
    ],
)
def test_the_net_catches(
    read: Callable[[Path, random.Random], object], problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "SECONDS", 1 if read is sleep else 10)
    monkeypatch.setattr(runner, "MEMORY", 32 * 2**20 if read is allocate else runner.MEMORY)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(TARGETS, "bad", Target(lambda rng: b"", read, ".x", targets.FILES))
    finding = run_case("bad", 0)
    assert finding is not None and problem in finding.problem


def test_the_net_lets_good_cases_through(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (fail(ImageError("one line")), lambda path, rng: path.write_bytes(b"inside")):
        monkeypatch.setitem(TARGETS, "good", Target(lambda rng: b"", read, ".x", targets.FILES))
        assert run_case("good", 0) is None

"""`adaattn evaluate` in several processes, as torchrun starts them: the report of one process, written once."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core import save_model
from adaattn_core.evaluation.runner import Records
from adaattn_core.io.files import sole_writer
from tests.helpers import narrow_evaluation
from tests.helpers.evaluation import write_pictures
from tests.helpers.small_models import small_model

ROOT = Path(__file__).parents[2]
COMMAND = "evaluate --content photos --style paintings -o report --device cpu --model m.safetensors"
needs_gloo = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this build of torch has no gloo")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: three contents in photos/, two styles in paintings/, m.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos", ["sea", "hill", "wood"], seed=10)
    write_pictures(tmp_path / "paintings", ["ink", "oil"], seed=20, size=(48, 36))
    save_model(small_model(), tmp_path / "m.safetensors")
    return tmp_path


def evaluate(*words: str, world: int = 1, **more: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NARROW_CALLS": "calls.txt"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), **more}
    program = [sys.executable, "-W", "ignore", narrow_evaluation.__file__, *shlex.split(COMMAND), *words]
    Path("calls.txt").write_text("")
    processes = [
        subprocess.Popen(program, env={**environment, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(world)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *words) for process, words in zip(processes, told, strict=True)]


def calls() -> list[str]:
    """The rank of each stylisation."""
    return sorted(Path("calls.txt").read_text().split())


def measured() -> dict[str, Any]:
    """The report without what differs between two runs: times."""
    report: dict[str, Any] = json.loads(Path("report/report.json").read_text())
    del report["settings"]["made"]
    for subject in report["subjects"]:
        del subject["seconds"]
    return report


@pytest.mark.slow
@needs_gloo
def test_the_report_is_that_of_one_process_and_is_written_once(desk: Path) -> None:
    Path("photos/wood.png").write_bytes(b"no picture")
    [(code, alone, errors)] = evaluate()
    assert (code, errors, calls()) == (0, "", ["0"] * 4)
    expected, thumbnails = measured(), {path.name for path in Path("report/thumbnails").iterdir()}
    assert len(expected["pairs"]) == 4 and len(expected["broken"]) == 1
    (code, output, errors), second = evaluate("--fresh", world=2)
    assert (code, errors) == (0, "") and second == (0, "", "")
    assert measured() == expected
    assert output.splitlines()[-3:] == alone.splitlines()[-3:], "the broken picture is named"
    assert calls() == ["0"] * 3 + ["1"], "the second process has the pairs of the broken picture"
    assert {path.name for path in Path("report").iterdir()} == {
        "report.html", "report.json", "results.jsonl", "thumbnails",
    }  # fmt: skip
    assert {path.name for path in Path("report/thumbnails").iterdir()} == thumbnails


@pytest.mark.slow
@needs_gloo
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_after_a_lost_process_the_same_command_measures_what_is_missing(desk: Path) -> None:
    (code, output, errors), (lost, *silent) = evaluate(world=2, NARROW_KILL="1 2")
    assert (lost, silent) == (-9, ["", ""])
    assert (code, output) == (1, "")
    assert errors == (
        "adaattn: another process of the run is gone; measurements are kept in report. Run the same command to "
        "continue.\n"
    )
    assert calls() == ["0"] * 3 + ["1"]
    assert evaluate()[0][0] == 0
    assert calls() == ["0"] * 2
    assert len(measured()["pairs"]) == 6
    assert not list(Path("report").glob("results-*"))


@pytest.mark.slow
@needs_gloo
def test_an_error_is_one_line_for_all_processes(desk: Path) -> None:
    (code, output, errors), second = evaluate("--model", "gone.safetensors", world=2)
    assert (code, output, errors) == (2, "", "adaattn: gone.safetensors: no such weights file. Check the path.\n")
    assert second == (1, "", "")
    if sys.platform != "win32":
        with sole_writer(Path("report"), "evaluates"):
            (code, output, errors), second = evaluate(world=2)
        assert (code, output) == (2, "") and second == (1, "", "")
        assert errors.startswith(f"adaattn: report is in use: process {os.getpid()} on ") and errors.count("\n") == 1


def test_records_of_other_processes_are_taken_in_and_their_files_removed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = Records.open(path)
    first.add({"key": "a", "value": 1})
    second = Records.open_part(path, 1)
    assert second.by_key == first.by_key
    second.add({"key": "b", "value": 2})
    with second.path.open("a") as file:
        file.write('{"key": "cut sh')
    assert [one["key"] for one in map(json.loads, path.read_text().splitlines())] == ["a"]
    first.merge()
    assert set(first.by_key) == set(Records.open(path).by_key) == {"a", "b"}
    assert list(tmp_path.iterdir()) == [path]
    Records.open_part(path, 1).add({"key": "c"})  # of a job that was killed
    assert set(Records.open(path).by_key) == {"a", "b", "c"}
    Records.open_part(path, 1).add({"key": "d"})
    assert not Records.open(path, fresh=True).by_key
    assert list(tmp_path.iterdir()) == [path]

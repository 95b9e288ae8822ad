"""Measurements of inference: what is counted, the table, and the errors."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adaattn_core.benchmarking import inference as bench
from adaattn_core.checkpoints.model_file import prepare_for_inference, save_model
from adaattn_core.cli import main
from adaattn_core.ops.key_pruning import KeyPruner
from tests.helpers.small_models import picture, small_model


def test_reference_and_published_shape_give_the_same_picture() -> None:
    """So both times are those of the same computation: at 64 pixels the reference, too, uses every style position."""
    content, style = picture(64, 64, seed=1), picture(64, 64, seed=2)
    model = bench.random_published()
    reference = bench.load_reference()
    theirs = reference.stylize(bench.published_files(model), content, style)
    ours = prepare_for_inference(model)(content, style)
    assert float((ours - theirs).norm() / theirs.norm()) < 5e-4


def test_a_table_and_a_file_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"reference": (4.0, 2.0), "compact": (1.0, 0.5)}

    def measured(subject: str, size: int, weights: Path | None) -> dict[str, float]:
        seconds, peak = numbers[subject]
        return {"seconds": seconds * size / 512, "gflop": 300.0, "gigabytes": 7.0, "peak_gib": peak}

    monkeypatch.setattr(bench, "_measure_in_process", measured)
    output = tmp_path / "numbers.json"
    assert main(["bench", "--subjects", "reference,compact", "--sizes", "256,512", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["subject"], row["size"], row["seconds"]) for row in rows] == [
        ("reference", 256, 2.0), ("compact", 256, 0.5), ("reference", 512, 4.0), ("compact", 512, 1.0),
    ]  # fmt: skip
    assert rows[-1]["time_ratio"] == rows[-1]["memory_ratio"] == 0.25
    table = capsys.readouterr().out
    assert "512 x 512" in table
    assert "compact 1.00 1.00..1.00 0.25 300 300 7.0 0.50 0.25" in " ".join(table.split())


def test_running_out_of_memory_is_one_line_and_earlier_measurements_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if command[-1] == "4096":
            return subprocess.CompletedProcess(command, -9, "", "")
        row = {"seconds": 1.0, "gflop": 1.0, "gigabytes": 1.0, "peak_gib": 1.0}
        return subprocess.CompletedProcess(command, 0, json.dumps(row), "")

    monkeypatch.setattr("adaattn_core.benchmarking.inference.subprocess.run", run)
    output = tmp_path / "numbers.json"
    assert main(["bench", "--subjects", "compact", "--sizes", "256,4096", "-o", str(output)]) == 2
    line = (
        "adaattn: measuring compact at 4096 was ended by signal 9, as happens when memory runs out. Leave out that "
        "size or subject.\n"
    )
    assert capsys.readouterr().err == line
    assert [row["size"] for row in json.loads(output.read_text())["rows"]] == [256]


def test_one_measurement_counts_time_and_memory() -> None:
    found = bench.measure("compact", 64)
    assert found["seconds"] > 0
    assert found["peak_gib"] * 2**30 >= torch.rand(1).element_size()
    assert 0.05 < found["peak_gib"] < 64


def test_all_operations_are_counted_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned attention runs on several threads."""
    monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS", 0)
    monkeypatch.setattr("adaattn_core.ops.moments.MIN_PAIRS_PER_MATRIX_ENTRY", 0)
    monkeypatch.setattr("adaattn_core.ops.chunked_attention.is_flat", lambda query, key: False)
    monkeypatch.setattr(KeyPruner, "is_worthwhile", lambda screen: True)
    before, counted = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            counted.append(bench.measure("compact", 64)["gflop"])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert counted[0] == counted[1]


def test_arithmetic_and_bytes_are_counted() -> None:
    """(2, 3) times (3, 5): 2 x 30 operations; 6 + 15 numbers are read and 10 written. A transposition moves nothing."""
    with FlopCounterMode(display=False) as arithmetic, bench.MemoryTraffic() as traffic:  # type: ignore[no-untyped-call]
        torch.ones(2, 3) @ torch.ones(5, 3).T
    assert arithmetic.get_total_flops() == 60
    ones = 4 * (6 + 15)
    assert traffic.bytes == ones + 4 * (6 + 15 + 10)


def test_a_given_weights_file_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(small_model(), tmp_path / "small.safetensors")
    monkeypatch.setattr(bench, "random_published", lambda: pytest.fail("random weights"))
    found = bench.measure("published", 32, tmp_path / "small.safetensors")
    assert 0 < found["gflop"] < 0.2  # the full size counts 1.7 for the decoder alone
    assert found["gigabytes"] > 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--subjects", "compact,fast"], "unknown subject 'fast'; known are reference, published"),
        (["--sizes", "256,wide"], "'wide' is not a whole number"),
        (["--sizes", "8"], "8 is out of range; at least 16 pixels are needed"),
        (["--weights", "none.safetensors"], "none.safetensors: no such weights file. Check the path."),
        (["--repeats", "0"], "0 is out of range; it must be at least 1"),
    ],
)
def test_wrong_arguments(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert text in capsys.readouterr().err

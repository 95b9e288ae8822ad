"""What a person sees of a training run: the log, the curve and the sample pictures."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaattn_core.training.dataset import TrainingPairs
from adaattn_core.training.loss_plot import HEIGHT, WIDTH, log_ticks, loss_curve_svg, running_mean, step_ticks, thinned
from adaattn_core.training.run_log import COLUMNS, RunLogger
from tests.helpers.small_models import small_model

SVG = "{http://www.w3.org/2000/svg}"

# ---------------------------------------------------------------- losses.csv


def written_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_step_is_a_row(tmp_path: Path) -> None:
    with RunLogger(tmp_path, 0) as record:
        record.add(1, "distill", {"total": 2.0, "distill": 2.0, "gradient_norm": 0.1234567})
        rows = written_rows(tmp_path)
        assert rows[0]["step"] == "1" and rows[0]["total"] == "2", "a row is there as soon as its step is done"
        record.add(2, "style", {"total": 1.5, "global": 1.0, "local": 0.5, "gradient_norm": 3.0})
    rows = written_rows(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert rows[0] == {**dict.fromkeys(COLUMNS, ""), "step": "1", "stage": "distill", "total": "2", "distill": "2",
                       "gradient_norm": "0.123457"}  # fmt: skip
    assert rows[1]["local"] == "0.5" and rows[1]["distill"] == ""
    assert (tmp_path / "losses.svg").is_file()


def fill(folder: Path, steps: int) -> None:
    with RunLogger(folder, 0) as record:
        for step in range(1, steps + 1):
            record.add(step, "style", {"total": float(step)})


def test_a_resumed_run_drops_the_rows_past_its_save(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    with RunLogger(tmp_path, 3) as record:
        record.add(4, "style", {"total": 40.0})
    assert [row["total"] for row in written_rows(tmp_path)] == ["1", "2", "3", "40"]


def test_a_row_cut_short_is_dropped(tmp_path: Path) -> None:
    fill(tmp_path, 12)
    whole = (tmp_path / "losses.csv").read_text()
    (tmp_path / "losses.csv").write_text(whole[: whole.index("12,style") + 1])  # a kill while step 12 was written
    with RunLogger(tmp_path, 11):
        pass
    assert [row["step"] for row in written_rows(tmp_path)] == [str(step) for step in range(1, 12)]


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with RunLogger(tmp_path, 0):
        pass
    assert written_rows(tmp_path) == []


# ---------------------------------------------------------------- samples/


def make_pairs(folder: Path, length: int, self_items: int) -> TrainingPairs:
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return TrainingPairs(
        folder, folder, crop=32, seed=0, length=length, batch=4, self_items=self_items, self_only_until=0
    )


@pytest.mark.parametrize(("length", "self_items", "columns"), [(80, 1, 8), (8, 1, 6), (8, 4, 1)])
def test_samples_are_the_last_style_pairs(length: int, self_items: int, columns: int, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "pictures").mkdir()
    pairs = make_pairs(tmp_path / "pictures", length, self_items)
    with RunLogger(tmp_path, 0) as record:
        for step in (3, 12):
            record.sample(small_model(), pairs, step)
    with Image.open(tmp_path / "samples" / "step-000003.jpg") as sheet:
        assert sheet.size == (32 * columns, 32 * 3)
        shown = np.asarray(sheet, dtype=np.float32) / 255
    last = pairs[length - 1]
    for row, crop in enumerate((last.content, last.style)):
        corner = shown[32 * row : 32 * (row + 1), -32:]
        assert np.abs(corner - crop.permute(1, 2, 0).numpy()).mean() < 0.03, "row 0 is content, row 1 style"
    first, second = ((tmp_path / "samples" / f"step-{step:06d}.jpg").read_bytes() for step in (3, 12))
    assert first == second, "the same pairs each time"


# ---------------------------------------------------------------- losses.svg


def polylines(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    lines = [line for line in ET.fromstring(svg).iter(f"{SVG}polyline") if line.get("class") == kind]
    return [[(float(x), float(y)) for x, y in (p.split(",") for p in line.get("points", "").split())] for line in lines]


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_each_stage_has_a_panel_of_its_own() -> None:
    points = [(step, "distill", 100.0 / step) for step in range(1, 101)]
    points += [(step, "<style>", 0.01) for step in range(101, 1101)]
    svg = loss_curve_svg(points)
    raw, smooth = polylines(svg, "raw"), polylines(svg, "smooth")
    assert len(raw) == len(smooth) == 2
    assert max(x for x, _ in raw[0]) < min(x for x, _ in raw[1]), "the panels overlap"
    for x, y in (point for line in raw + smooth for point in line):
        assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
    assert [y for _, y in raw[0]] == sorted(y for _, y in raw[0]), "a falling loss does not fall in the picture"
    assert len({y for _, y in raw[1]}) == 1
    assert {"Training loss, 1100 steps", "distill", "<style>", "step", "total loss (log scale)"} <= set(words(svg))
    assert {"100", "1000", "now 0.01"} <= set(words(svg))


def test_equal_ratios_are_equal_distances() -> None:
    # 401 points are thinned to runs of 3; the three plateaus of 1, 10, 100 stay
    points = [(step, "style", 10.0 ** (step // 100)) for step in range(300)]
    levels = sorted({y for _, y in polylines(loss_curve_svg(points), "raw")[0]})
    assert len(levels) == 3 and levels[1] - levels[0] == pytest.approx(
        levels[2] - levels[1], abs=0.15
    )  # rounded to 0.1


@pytest.mark.parametrize("losses", [[], [1.0], [0.0, 0.0], [1e-12, 1e6], [5.0] * 3, [1.0, 1.0001]])
def test_odd_curves_are_drawn(losses: list[float]) -> None:
    svg = loss_curve_svg([(step, "style", loss) for step, loss in enumerate(losses, 1)])
    assert len(polylines(svg, "raw")) == (1 if losses else 0)
    assert "nan" not in svg and "inf" not in svg


def test_a_long_run_stays_a_small_file() -> None:
    noise = np.random.default_rng(0).random(60_000)
    svg = loss_curve_svg([(step, "style", 1.0 + float(loss)) for step, loss in enumerate(noise)])
    assert len(svg) < 30_000


def test_thinning_keeps_the_extremes() -> None:
    curve = [(step, float(step % 7)) for step in range(1000)] + [(1000, 99.0), (1001, 3.0)]
    kept = thinned(curve, 100)
    assert len(kept) <= 101 and (1000, 99.0) in kept and kept[-1] == (1001, 3.0)
    assert kept == sorted(kept)


def test_a_running_mean_of_a_line_is_the_line() -> None:
    line = [(step, 2.0 * step) for step in range(50)]
    assert running_mean(line, 3)[3:-3] == line[3:-3]


@pytest.mark.parametrize(
    ("low", "high"), [(0.9, 1.1), (1e-9, 2e-9), (3e-5, 0.2), (0.5, 40), (1e-9, 1e9), (9.99, 10.01), (700, 2200)]
)
def test_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 10 and all(low <= tick <= high for tick in ticks) and ticks == sorted(set(ticks))


@pytest.mark.parametrize(("first", "last"), [(1, 2), (0, 9), (1501, 3000), (1, 50_000)])
def test_step_ticks_are_whole_numbers_inside(first: int, last: int) -> None:
    ticks = step_ticks(first, last, 5)
    assert 1 <= len(ticks) <= 7 and all(first <= tick <= last for tick in ticks)

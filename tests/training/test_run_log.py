"""What a person sees of a training run: the log, the curve and the sample pictures."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaattn_core.training.dataset import PairSchedule, TrainingPairs
from adaattn_core.training.run_log import COLUMNS, RunLogger, moving_average, plot_losses, thin
from tests.helpers.small_models import small_model

SVG = "{http://www.w3.org/2000/svg}"
Draw = Callable[[Sequence[tuple[int, str, float]]], ET.Element]

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
    if importlib.util.find_spec("matplotlib"):
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


def make_pairs(folder: Path, length: int, n_self_pairs: int) -> TrainingPairs:
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return TrainingPairs(folder, folder, PairSchedule(length, 4, n_self_pairs), crop=32, seed=0)


@pytest.mark.parametrize(("length", "n_self_pairs", "columns"), [(80, 1, 8), (8, 1, 6), (8, 4, 1)])
def test_samples_are_the_last_style_pairs(length: int, n_self_pairs: int, columns: int, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "pictures").mkdir()
    pairs = make_pairs(tmp_path / "pictures", length, n_self_pairs)
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


@pytest.fixture
def svg(tmp_path: Path) -> Draw:
    """Draws a loss curve and reads the file."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install adaattn[train] un-skips this")

    def draw(points: Sequence[tuple[int, str, float]]) -> ET.Element:
        plot_losses(points, tmp_path / "losses.svg")
        return ET.parse(tmp_path / "losses.svg").getroot()

    return draw


def curve(root: ET.Element, name: str) -> list[tuple[float, float]]:
    """The points of one curve in the drawing; y grows downwards."""
    (group,) = (element for element in root.iter(f"{SVG}g") if element.get("id") == name)
    (path,) = group.iter(f"{SVG}path")
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d", ""))]


def words(root: ET.Element) -> set[str]:
    return {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}


def test_each_stage_has_a_panel_of_its_own(svg: Draw) -> None:
    points = [(step, "distill", 100.0 / step) for step in range(1, 101)]
    points += [(step, "<style>", 0.01) for step in range(101, 1101)]
    root = svg(points)
    distill, style = curve(root, "distill loss"), curve(root, "<style> loss")
    width, height = map(float, root.get("viewBox", "").split()[2:])
    assert max(x for x, _ in distill) < min(x for x, _ in style), "the panels overlap"
    for x, y in (*distill, *style, *curve(root, "distill average"), *curve(root, "<style> average")):
        assert 0 <= x <= width and 0 <= y <= height
    assert [y for _, y in distill] == sorted(y for _, y in distill), "a falling loss does not fall in the picture"
    assert len({y for _, y in style}) == 1
    assert {"Training loss, 1100 steps", "distill", "<style>", "step", "total loss (log scale)"} <= words(root)
    assert {"now 1.01", "now 0.01"} <= words(root)


def test_equal_ratios_are_equal_distances(svg: Draw) -> None:
    points = [(step, "style", 10.0 ** (step // 100)) for step in range(300)]  # plateaus of 1, 10 and 100
    levels = sorted({y for _, y in curve(svg(points), "style loss")})
    assert len(levels) == 3 and levels[1] - levels[0] == pytest.approx(levels[2] - levels[1], abs=1e-3)


@pytest.mark.parametrize("losses", [[], [1.0], [0.0, 0.0], [1e-12, 1e6], [5.0] * 3, [1.0, 1.0001]])
def test_unusual_curves_are_drawn(losses: list[float], svg: Draw, tmp_path: Path) -> None:
    root = svg([(step, "style", loss) for step, loss in enumerate(losses, 1)])
    assert not losses or len(curve(root, "style loss")) >= 1
    assert not re.search(r"\b(nan|inf)\b", (tmp_path / "losses.svg").read_text())


def test_one_outlier_in_200_does_not_set_the_scale(svg: Draw) -> None:
    points = [(step, "style", 1e6 if step == 500 else 2.0 + step % 2) for step in range(1000)]
    root = svg(points)
    low, high = (sorted(y for _, y in curve(root, "style loss"))[index] for index in (-1, 10))
    assert low - high > 0


def test_a_long_run_stays_a_small_file(svg: Draw, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random(60_000)
    svg([(step, "style", 1.0 + float(loss)) for step, loss in enumerate(noise)])
    assert (tmp_path / "losses.svg").stat().st_size < 60_000


def test_the_same_losses_are_the_same_file(svg: Draw, tmp_path: Path) -> None:
    points = [(step, "style", 1.0 / step) for step in range(1, 50)]
    svg(points)
    first = (tmp_path / "losses.svg").read_bytes()
    svg(points)
    assert (tmp_path / "losses.svg").read_bytes() == first


def test_thinning_keeps_the_extremes() -> None:
    steps = np.arange(1002.0)
    losses = np.append(steps[:1000] % 7, [99.0, 3.0])
    kept_steps, kept = thin(steps, losses, 100)
    assert len(kept) <= 101 and (kept_steps[-2:].tolist(), kept[-2:].tolist()) == ([1000, 1001], [99, 3])
    assert (np.diff(kept_steps) > 0).all() and kept.min() == 0


def test_a_moving_average_of_a_line_is_the_line() -> None:
    line = 2.0 * np.arange(50, dtype=np.float64)
    assert moving_average(line, 3)[3:-3].tolist() == line[3:-3].tolist()


def test_without_matplotlib_all_but_the_curve_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "samples").mkdir()
    (tmp_path / "pictures").mkdir()
    with RunLogger(tmp_path, 0) as record:
        record.add(1, "style", {"total": 1.0})
        record.sample(small_model(), make_pairs(tmp_path / "pictures", 8, 1), 1)
    assert caplog.messages == [
        "losses.svg is not drawn: the package matplotlib is not installed. Run: pip install matplotlib"
    ]
    assert len(written_rows(tmp_path)) == 1 and (tmp_path / "samples" / "step-000001.jpg").is_file()
    assert not (tmp_path / "losses.svg").exists()

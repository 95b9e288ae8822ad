"""The evaluation loop and its summary: interrupted runs continue, nothing is measured twice, little is in memory."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from adaattn_core.evaluation import methods as methods_module
from adaattn_core.evaluation.methods import (
    IdentityBaseline,
    Kind,
    Method,
    Output,
    Pair,
    Sources,
    StyleCopyBaseline,
    choose_pairs,
    existing_images,
)
from adaattn_core.evaluation.runner import Evaluation, Records
from adaattn_core.evaluation.summary import not_measured, summarize, table
from adaattn_core.io.images import load_over_white, save_image
from adaattn_core.runtime.progress import ProgressBar, progress_bar
from tests.helpers.evaluation import narrow_suite, paths, write_pictures
from tests.helpers.small_models import picture


def names_of(pairs: Sequence[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


@dataclass
class Counting:
    """Brightens the content, counts its calls, and may stop at one of them."""

    name: str = "counting"
    kind: Kind = "model"
    calls: int = 0
    stop_at: int = 10**9
    amount: float = 0.1

    def identity(self, pair: Pair) -> str:
        return f"brighter by {self.amount}"

    def stylize(self, pair: Pair, sources: Sources) -> Output:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return Output((sources.content + self.amount).clamp(0, 1), 2.0)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    contents, styles = ["sea", "hill"], ["ink", "oil"]
    write_pictures(tmp_path / "c", contents, seed=10)
    write_pictures(tmp_path / "s", styles, seed=20, size=(48, 36))
    return paths(tmp_path / "c", contents), paths(tmp_path / "s", styles)


def start(
    folders: tuple[list[Path], list[Path]], report: Path, *subjects: Method, fresh: bool = False, size: int = 512
) -> Evaluation:
    pairs = choose_pairs(*folders, [], None, 0)
    return Evaluation(narrow_suite(), subjects, pairs, Records.open(report / "results.jsonl", fresh), size)


def run(evaluation: Evaluation) -> ProgressBar:
    with progress_bar(len(evaluation.pairs) * len(evaluation.methods), enabled=True) as bar:
        evaluation.run(bar)
    return bar


def test_every_method_is_measured_on_every_pair(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    evaluation = start(folders, tmp_path, Counting(), IdentityBaseline(), StyleCopyBaseline())
    bar = run(evaluation)
    assert bar.n == bar.total == 12
    complete = evaluation.complete()
    assert names_of(list(complete)) == ["sea__ink", "sea__oil", "hill__ink", "hill__oil"]
    for records in complete.values():
        assert [record["subject"] for record in records] == ["counting", "content unchanged", "style copied"]
        brighter, unchanged, copied = (record["values"] for record in records)
        assert set(brighter) == set(evaluation.suite.metrics)
        assert unchanged["ssim"] == pytest.approx(1)
        assert unchanged["lpips_vgg"] == unchanged["content"] == 0
        assert 0 < brighter["lpips_vgg"] < copied["lpips_vgg"]
        assert copied["color"] < unchanged["color"]


def test_an_interrupted_run_continues(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    uninterrupted = start(folders, tmp_path / ".", Counting(), IdentityBaseline())
    uninterrupted.records = Records(tmp_path / "uninterrupted.jsonl")
    run(uninterrupted)

    stopped = start(folders, tmp_path, Counting(stop_at=2), IdentityBaseline())
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"key": "half a li')  # a kill in the middle of writing
    counting = Counting()
    resumed = start(folders, tmp_path, counting, IdentityBaseline())
    bar = run(resumed)
    assert counting.calls == 2  # of four
    assert bar.n == 8
    assert list(resumed.complete().values()) == list(uninterrupted.complete().values())
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 8 + 2 and all(json.loads(line)["key"] for line in lines)  # and one for each style


def test_nothing_is_measured_twice_and_what_changed_is(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    def calls(amount: float = 0.1, fresh: bool = False, size: int = 512) -> int:
        counting = Counting(amount=amount)
        run(start(folders, tmp_path, counting, fresh=fresh, size=size))
        return counting.calls

    assert calls() == 4
    assert calls() == 0
    assert calls(amount=0.2) == 4  # another picture
    assert calls() == 0  # the first is still known
    assert calls(size=16) == 4
    save_image(picture(32, 40, seed=99), folders[0][0])
    assert calls() == 2  # of the content that changed
    assert calls(fresh=True) == 4


def test_a_broken_picture_leaves_its_pairs_out(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    folders[1][0].write_bytes(folders[1][0].read_bytes()[:200])
    evaluation = start(folders, tmp_path, Counting(), IdentityBaseline())
    bar = run(evaluation)
    assert bar.n == 8
    assert names_of(list(evaluation.complete())) == ["sea__oil", "hill__oil"]
    assert list(evaluation.unreadable) == ["sea__ink", "hill__ink"]
    report = summarize(evaluation, 0, {}, {}, {})
    ((reason, count),) = report["broken"].items()
    assert count == 2 and "ink.png is damaged or cut short" in reason
    assert report["pairs"] == [["sea", "oil"], ["hill", "oil"]]


def test_a_removed_picture_leaves_its_pairs_out(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    evaluation = start(folders, tmp_path, IdentityBaseline())
    folders[1][0].unlink()
    run(evaluation)
    assert names_of(list(evaluation.complete())) == ["sea__oil", "hill__oil"]
    assert list(evaluation.unreadable) == ["sea__ink", "hill__ink"]
    assert "ink.png does not exist" in evaluation.unreadable["sea__ink"]


def test_one_pair_alone_has_no_intervals(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    line = "not measured: intervals (they need at least two pairs)"
    for contents, alone in ((folders[0][:1], True), (folders[0], False)):
        evaluation = start((contents, folders[1][:1]), tmp_path, IdentityBaseline())
        run(evaluation)
        assert (line in not_measured(summarize(evaluation, 0, {}, {}, {}))) == alone


def test_a_broken_finished_picture_leaves_its_pair_out_for_all(
    folders: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    done = write_pictures(tmp_path / "done", ["sea__ink", "hill__oil"])
    (done / "sea__ink.png").write_bytes(b"no picture")
    subject = existing_images("done", done)
    pairs = choose_pairs(*folders, [subject], None, 0)
    records = Records.open(tmp_path / "results.jsonl")
    evaluation = Evaluation(narrow_suite(), [subject, IdentityBaseline()], pairs, records)
    run(evaluation)
    assert names_of(list(evaluation.complete())) == ["hill__oil"]
    assert "sea__ink.png is not a picture that can be read" in evaluation.unreadable["sea__ink"]


def test_no_readable_pair_is_an_error(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    for path in folders[0]:
        path.write_bytes(b"no picture")
    evaluation = start(folders, tmp_path, IdentityBaseline())
    run(evaluation)
    with pytest.raises(
        ValueError, match=r"none of the 4 pairs could be measured, the first because .*sea.png is not a"
    ):
        summarize(evaluation, 0, {}, {}, {})


def test_few_pictures_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: a pair's two, and one more while the next pair's are read."""
    names = [f"n{index}" for index in range(5)]
    write_pictures(tmp_path / "c", names)
    write_pictures(tmp_path / "s", names, seed=50)
    loaded: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watched(path: Path) -> Tensor:
        image = load_over_white(path)
        loaded.append(weakref.ref(image))
        alive.append(sum(one() is not None for one in loaded))
        return image

    monkeypatch.setattr(methods_module, "load_over_white", watched)
    evaluation = start((paths(tmp_path / "c", names), paths(tmp_path / "s", names)), tmp_path, Counting())
    run(evaluation)
    assert len(loaded) == 50
    assert max(alive) <= 4


# ---------------------------------------------------------------- the summary


def test_summary_has_means_intervals_and_differences(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    evaluation = start(folders, tmp_path, Counting(), Counting("more", amount=0.3), IdentityBaseline())
    run(evaluation)
    report = summarize(evaluation, 0, {"counting": 1.5}, {"artfid": {"more": 30.0}}, {"size": 512})
    assert json.loads(json.dumps(report)) == report
    first, second, unchanged = report["subjects"]
    for index, subject in enumerate(report["subjects"]):
        numbers = [records[index]["values"]["lpips_vgg"] for records in evaluation.complete().values()]
        value = subject["values"]["lpips_vgg"]
        assert value["mean"] == pytest.approx(sum(numbers) / 4)
        assert min(numbers) <= value["low"] <= value["mean"] <= value["high"] <= max(numbers)
    difference = second["to_first"]["lpips_vgg"]
    assert difference["mean"] == pytest.approx(
        second["values"]["lpips_vgg"]["mean"] - first["values"]["lpips_vgg"]["mean"]
    )
    assert difference["low"] > 0 and difference["won"] == 0  # brighter is farther, on every pair
    assert unchanged["to_first"]["ssim"]["won"] == 1  # higher is better
    assert (first["seconds"], first["peak_gib"], unchanged["seconds"]) == (2.0, 1.5, None)
    assert second["values"]["artfid"] == {"mean": 30.0}
    assert [m["missing"] for m in report["metrics"] if m["name"] in ("ssim", "artfid")] == [None, "not in a test"]


def test_table_for_a_terminal(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    evaluation = start(folders, tmp_path, Counting(), IdentityBaseline())
    run(evaluation)
    lines = table(summarize(evaluation, 0, {"counting": 1.5}, {}, {})).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["Patch", "distance", "(VGG-19)"] and lines[0].endswith("s/picture  peak GiB")
    assert lines[1].startswith("counting") and lines[1].endswith("2.00      1.50")
    assert "1.000 ±0.000" in lines[2] and lines[2].endswith("-         -")
    assert "LPIPS (Alex)" not in lines[0]  # not measured: said elsewhere

"""Which pairs are judged, what the rows are, and that a run goes on where it stopped, with little in memory."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core.checkpoints.model_file import save_model
from adaattn_core.errors import ImageError
from adaattn_core.evaluation import methods as methods_module
from adaattn_core.evaluation.methods import (
    MAX_PAIRS,
    IdentityBaseline,
    Kind,
    Method,
    ModelMethod,
    Output,
    Pair,
    Sources,
    StyleCopyBaseline,
    choose_pairs,
    existing_images,
    load_reduced,
)
from adaattn_core.evaluation.peak_memory import measure_peak, peak_memory_gib
from adaattn_core.evaluation.runner import Evaluation, Records
from adaattn_core.evaluation.summary import not_measured, summarize, table
from adaattn_core.io.images import load_image, save_image
from adaattn_core.runtime.progress import ProgressBar, progress_bar
from tests.helpers.evaluation import narrow_suite, write_pictures
from tests.helpers.small_models import picture, small_model


def paths(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / f"{name}.png" for name in names]


CONTENTS, STYLES = paths(Path("c"), ["sea", "hill"]), paths(Path("s"), ["ink", "oil", "oil__2"])


# ---------------------------------------------------------------- pairs


def names_of(pairs: Sequence[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def test_each_content_with_each_style() -> None:
    pairs = choose_pairs(CONTENTS, STYLES, [], None, 0)
    assert names_of(pairs) == [f"{c}__{s}" for c in ("sea", "hill") for s in ("ink", "oil", "oil__2")]


def test_a_seeded_draw_of_pairs() -> None:
    first, again, other = (names_of(choose_pairs(CONTENTS, STYLES, [], 3, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 3
    assert first == sorted(first, key=names_of(choose_pairs(CONTENTS, STYLES, [], None, 0)).index)
    assert len(choose_pairs(CONTENTS, STYLES, [], 99, 0)) == 6


def test_a_few_of_very_many_pairs_take_no_time() -> None:
    """10^8 pairs, which a list of would take minutes and gigabytes."""
    many = paths(Path(), [f"picture{index}" for index in range(10_000)])
    assert len(choose_pairs(many, many, [], 5, 0)) == 5
    with pytest.raises(ImageError, match=rf"100000000 pairs came; at most {MAX_PAIRS} are allowed. Draw some of them"):
        choose_pairs(many, many, [], None, 0)


def test_pairs_that_every_folder_has(tmp_path: Path) -> None:
    one = existing_images(
        "one", write_pictures(tmp_path / "one", ["sea__ink", "sea__oil__2", "hill__oil", "lake__ink"])
    )
    two = existing_images("two", write_pictures(tmp_path / "two", ["hill__oil", "sea__oil__2", "notes"]))
    assert names_of(choose_pairs(CONTENTS, STYLES, [one, two], None, 0)) == ["sea__oil__2", "hill__oil"]
    assert names_of(choose_pairs(CONTENTS, STYLES, [two, one], 1, 0))[0] in ("sea__oil__2", "hill__oil")


def test_a_folder_without_a_pair(tmp_path: Path) -> None:
    one = existing_images("one", write_pictures(tmp_path / "one", ["sea__ink"]))
    other = existing_images("other", write_pictures(tmp_path / "other", ["hill__ink"]))
    odd = existing_images("odd", write_pictures(tmp_path / "odd", ["result1"]))
    with pytest.raises(ImageError) as error:
        choose_pairs(CONTENTS, STYLES, [odd], None, 0)
    assert str(error.value) == (
        "no pair is left with the 1 pictures of odd, such as result1: names like sea__ink are needed, of pairs that "
        "the other folders have too. Check names and folders."
    )
    with pytest.raises(ImageError, match="no pair is left with the 1 pictures of other, such as hill__ink"):
        choose_pairs(CONTENTS, STYLES, [one, other], None, 0)


def test_two_pictures_of_one_name() -> None:
    twice = [Path("a/sea.png"), Path("b/sea.jpg")]
    with pytest.raises(ImageError, match="have the same name; pair names need different ones. Rename one."):
        choose_pairs(twice, STYLES, [], None, 0)


# ---------------------------------------------------------------- rows


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A 40x32 content, a 100x50 style."""
    write_pictures(tmp_path, ["sea"], seed=1)
    write_pictures(tmp_path, ["ink"], seed=2, size=(50, 100))
    return Pair(tmp_path / "sea.png", tmp_path / "ink.png")


@pytest.fixture
def sources(pair: Pair) -> Sources:
    return Sources(load_image(pair.content), load_image(pair.style))


def test_content_unchanged_is_the_content(pair: Pair, sources: Sources) -> None:
    assert IdentityBaseline().stylize(pair, sources).picture is sources.content


def test_style_copied_is_the_middle_of_the_style(pair: Pair, sources: Sources) -> None:
    """50 rows become 32, 100 columns 64, of which the middle 40 are left."""
    made = StyleCopyBaseline().stylize(pair, sources).picture
    assert made.shape == sources.content.shape
    ramp = torch.linspace(0, 1, 100).expand(1, 3, 50, 100)
    copied = StyleCopyBaseline().stylize(pair, Sources(sources.content, ramp)).picture
    assert torch.allclose(copied[0, 0, 0], torch.linspace(0, 1, 64)[12:52], atol=0.02)


def test_a_model_paints_and_is_timed(pair: Pair, sources: Sources) -> None:
    model = small_model()
    full = ModelMethod("full", model, "m", "digest")
    half = ModelMethod("half", model, "m", "digest", strength=0.5)
    none = ModelMethod("none", model, "m", "digest", strength=0.0)
    made = [one.stylize(pair, sources) for one in (none, half, full)]
    assert torch.equal(made[0].picture, sources.content)
    away = [float((one.picture - sources.content).abs().mean()) for one in made]
    assert away[0] == 0 < away[1] < away[2]
    assert all(one.seconds is not None and one.seconds > 0 for one in made[1:])
    assert full.identity(pair) != half.identity(pair)


def test_finished_pictures_are_brought_to_the_contents_size(pair: Pair, sources: Sources, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "done", ["sea__ink"], size=(64, 80))
    made = existing_images("done", folder).stylize(pair, sources)
    assert made.picture.shape == sources.content.shape
    assert made.resized and made.seconds is None
    assert not existing_images("done", write_pictures(folder, ["sea__ink"])).stylize(pair, sources).resized


def test_large_sources_are_reduced(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["wide"], size=(40, 60))
    assert load_reduced(tmp_path / "wide.png", 20).shape == (1, 3, 20, 30)
    assert (
        load_reduced(tmp_path / "wide.png", 64).shape == load_reduced(tmp_path / "wide.png", 0).shape == (1, 3, 40, 60)
    )


# ---------------------------------------------------------------- the run


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


def test_every_row_gets_every_number_of_every_pair(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
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


def test_a_run_that_was_stopped_goes_on(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    whole = start(folders, tmp_path / ".", Counting(), IdentityBaseline())
    whole.records = Records(tmp_path / "whole.jsonl")
    run(whole)

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
    assert list(resumed.complete().values()) == list(whole.complete().values())
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 8 and all(json.loads(line)["key"] for line in lines)


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


def test_a_picture_that_goes_leaves_its_pairs_out(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
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


def test_nothing_left_to_judge_is_an_error(folders: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
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
        image = load_image(path)
        loaded.append(weakref.ref(image))
        alive.append(sum(one() is not None for one in loaded))
        return image

    monkeypatch.setattr(methods_module, "load_image", watched)
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
    assert lines[0].split()[:2] == ["Style", "(VGG-16)"] and lines[0].endswith("s/picture  peak GiB")
    assert lines[1].startswith("counting") and lines[1].endswith("2.00      1.50")
    assert "1.000 ±0.000" in lines[2] and lines[2].endswith("-         -")
    assert "LPIPS (Alex)" not in lines[0]  # not measured: said elsewhere


def test_peak_memory_of_a_model_of_its_own(pair: Pair, tmp_path: Path) -> None:
    """A process that has torch and a small model takes some 0.3 to 1 GiB, whatever this one has eaten."""
    save_model(small_model(), tmp_path / "m.safetensors", dtype=torch.float32)
    ballast = torch.ones(400 * 2**20, dtype=torch.uint8)  # the child must not count it
    painter = ModelMethod("small", small_model(), str(tmp_path / "m.safetensors"), "digest", temperature=2.0)
    peak = peak_memory_gib(painter, pair, 512)
    assert peak is not None and peak > 0.1
    job = {
        "source": painter.source, "device": "cpu", "dtype": "float32", "size": 512, "options": {},
        "content": str(pair.content), "style": str(pair.style),
    }  # fmt: skip
    assert peak < measure_peak(job) - 0.2
    assert ballast.sum() == ballast.numel()


def test_peak_memory_that_cannot_be_measured(pair: Pair, tmp_path: Path) -> None:
    assert (
        peak_memory_gib(ModelMethod("gone", small_model(), str(tmp_path / "none.safetensors"), ""), pair, 512) is None
    )

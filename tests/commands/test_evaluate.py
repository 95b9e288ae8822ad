"""`adaattn evaluate` from files to a report, and its errors: exit code 2 and one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, device

from adaattn_core import save_model
from adaattn_core.cli import main
from adaattn_core.commands import evaluate as command
from adaattn_core.commands.shared.evaluated import parse_model
from adaattn_core.errors import CheckpointError
from adaattn_core.evaluation import report as report_module
from adaattn_core.evaluation.methods import ModelMethod
from adaattn_core.evaluation.networks import LPIPS_LEVELS
from adaattn_core.io.images import load_image
from tests.helpers.evaluation import NARROW, narrow_vgg16, narrow_vgg19, write_pictures
from tests.helpers.small_models import small_model

BASIC = "evaluate --content photos --style paintings -o report --device cpu"
KNOWN = "base, compact, compact-0.1, published"
FULL = f"{BASIC} --vgg vgg19.pth --vgg16 vgg16.pth --lpips heads.pth"


def charts(monkeypatch: pytest.MonkeyPatch, drawn: bool) -> None:
    """Whether matplotlib is taken to be installed."""
    for module in (command, report_module):
        monkeypatch.setattr(module, "has_matplotlib", lambda: drawn)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ and paintings/ of two each, others/ with a picture of each pair, m.safetensors; narrow networks."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos", ["sea", "hill"], seed=10)
    write_pictures(tmp_path / "paintings", ["ink", "oil"], seed=20, size=(48, 36))
    write_pictures(tmp_path / "others", ["sea__ink", "sea__oil", "hill__ink", "hill__oil"], seed=30)
    save_model(small_model(), tmp_path / "m.safetensors")

    def heads(source: str) -> dict[str, Tensor]:
        return {level: Tensor([1.0] * width) for level, width in zip(LPIPS_LEVELS, NARROW, strict=True)}

    def offline(where: device) -> Any:
        raise CheckpointError("AlexNet could not be downloaded (no route to host)")

    monkeypatch.setattr(command, "load_vgg", lambda source="built-in", normalized=False: narrow_vgg19())
    monkeypatch.setattr(command, "load_vgg16", lambda source: narrow_vgg16())
    monkeypatch.setattr(command, "load_lpips_heads", heads)
    monkeypatch.setattr(command, "load_lpips_alex", offline)
    charts(monkeypatch, False)  # they take a second for each report
    monkeypatch.setattr(command, "peak_memory_gib", lambda method, pair, size: 0.5)
    return tmp_path


def run(line: str) -> None:
    assert main(shlex.split(line)) == 0, line


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    return found


def rows() -> list[str]:
    return [subject["name"] for subject in report()["subjects"]]


def missing() -> dict[str, str]:
    return {metric["name"]: metric["missing"] for metric in report()["metrics"] if metric["missing"]}


REFERENCES = ["content unchanged", "style copied"]


def test_ablations_are_rows_beside_their_model(desk: Path) -> None:
    run(f"{FULL} --model small=m.safetensors --model again=m.safetensors,levels=none --ablate --pairs 1")
    rest = ["AdaIN statistics", "sampled", "relu3_1 alone"]
    names = [name for label in ("small", "again") for name in (label, *(f"{label}, {what}" for what in rest))]
    assert rows() == [*names, *REFERENCES]
    scores = {one["name"]: one["values"]["style_vgg16"]["mean"] for one in report()["subjects"]}
    assert scores["again"] == scores["small, AdaIN statistics"] != scores["small"]
    assert scores["small, sampled"] == scores["small"], "pictures this small have fewer positions than are sampled"


def test_a_model_and_a_folder_are_measured(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(f"{FULL} --model small=m.safetensors --pictures peer=others")
    assert rows() == ["small", "peer", *REFERENCES]
    found = report()
    assert found["pairs"] == [["hill", "ink"], ["hill", "oil"], ["sea", "ink"], ["sea", "oil"]]
    assert missing() == {
        "lpips_alex": "AlexNet could not be downloaded (no route to host)", "artfid": "not asked for; add --artfid",
    }  # fmt: skip
    small, peer = found["subjects"][:2]
    assert small["seconds"] > 0 and small["peak_gib"] == 0.5
    assert peer["seconds"] is None and peer["peak_gib"] is None
    assert small["values"]["ssim"]["mean"] < 1
    output = capsys.readouterr().out
    assert "not measured: LPIPS (Alex) (AlexNet could not be downloaded (no route to host))" in output
    assert output.rstrip().endswith(str(Path("report/report.html")))
    html = Path("report/report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") == 4 * 4  # content, style, two rows; four pairs
    assert sorted(path.name for path in Path("report").iterdir()) == [
        "report.html", "report.json", "results.jsonl", "thumbnails",
    ]  # fmt: skip
    assert len(list(Path("report/thumbnails").iterdir())) == 8


def test_the_report_has_charts_where_matplotlib_is_installed(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pip install matplotlib")
    for drawn in (True, False):
        charts(monkeypatch, drawn)
        run(f"{BASIC} --vgg vgg19.pth --pictures others --pairs 2 --show 0")
        assert ("<svg" in Path("report/report.html").read_text(encoding="utf-8")) is drawn
        assert ("The report has no chart: matplotlib is not installed." in capsys.readouterr().out) is not drawn


def test_the_older_name_of_vgg16_is_an_alias(desk: Path) -> None:
    run(f"{FULL.replace('--vgg16', '--judge')} --pictures others --pairs 1 --show 0")
    assert "style_vgg16" not in missing()
    assert report()["settings"]["judge"] == "vgg16.pth"


def test_base_is_the_default(desk: Path) -> None:
    run(f"{FULL} --pairs 1 --show 0")
    assert rows() == ["base", *REFERENCES]
    run(f"{FULL} --pairs 1 --show 0 --pictures others")
    assert rows() == ["others", *REFERENCES]


def test_metrics_without_their_network_name_the_option(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"{BASIC} --vgg vgg19.pth --pictures others --show 0")
    found = missing()
    assert {found[name] for name in ("style_vgg16", "gram", "cfsd", "lpips_vgg")} == {
        "it needs --vgg16 FILE or torchvision"
    }
    assert "style_vgg19" not in found and "ssim" not in found
    line = "not measured: Style (VGG-16), Gram (VGG-16), LPIPS (VGG-16), CFSD (VGG-16) (it needs --vgg16 FILE or"
    assert line in capsys.readouterr().out
    monkeypatch.setattr(command, "package_lpips_heads", lambda: raise_error("the lpips package is not installed"))
    run(f"{BASIC} --vgg vgg19.pth --vgg16 vgg16.pth --pictures others --show 0")
    assert missing()["lpips_vgg"] == "the lpips package is not installed, or name its heads with --lpips FILE"


def raise_error(line: str) -> Any:
    raise CheckpointError(line)


def test_a_second_run_measures_only_what_is_new(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stylized: list[str] = []
    make = ModelMethod.stylize

    def recording(self: ModelMethod, *rest: Any) -> Any:
        stylized.append(self.name)
        return make(self, *rest)

    monkeypatch.setattr(ModelMethod, "stylize", recording)
    run(f"{FULL} --model one=m.safetensors --show 2")
    assert stylized == ["one"] * 4
    run(f"{FULL} --model one=m.safetensors --model two=m.safetensors,temperature=2 --show 2")
    assert stylized == ["one"] * 4 + ["two"] * 4
    run(f"{FULL} --model one=m.safetensors --show 4")
    assert stylized == ["one"] * 4 + ["two"] * 4 + ["one"] * 2  # only for pictures that were not shown before
    run(f"{FULL} --model one=m.safetensors --show 0 --fresh")
    assert len(stylized) == 14


def test_a_row_with_refinement(desk: Path) -> None:
    run(f"{FULL} --model plain=m.safetensors --model refined=m.safetensors,refine=4 --show 0 --pairs 1")
    plain, refined = (row["values"]["patch_distance"]["mean"] for row in report()["subjects"][:2])
    assert refined < plain


def test_pictures_of_the_report_are_not_contents(desk: Path) -> None:
    command = f"{FULL} --model m.safetensors --show 4".replace("-o report", "-o photos/report")
    run(command)
    assert list((desk / "photos" / "report" / "thumbnails").iterdir())
    run(command)
    assert len(json.loads((desk / "photos" / "report" / "report.json").read_text())["pairs"]) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux only")
def test_a_file_name_that_is_not_unicode_does_not_prevent_the_report(desk: Path) -> None:
    os.rename(b"photos/sea.png", b"photos/s\xe9a.png")
    run(f"{FULL} --model m.safetensors --show 4")
    assert "s\\udce9a" in Path("report/report.html").read_text(encoding="utf-8")


def test_an_interrupted_run_says_how_to_continue(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stylized: list[str] = []
    make = ModelMethod.stylize

    def interrupted(self: ModelMethod, *rest: Any) -> Any:
        if len(stylized) == 2:
            raise KeyboardInterrupt
        stylized.append(self.name)
        return make(self, *rest)

    monkeypatch.setattr(ModelMethod, "stylize", interrupted)
    assert main(shlex.split(f"{FULL} --model m.safetensors")) == 130
    assert capsys.readouterr().err == (
        "adaattn: interrupted; measurements are kept in report. Run the same command to continue.\n"
    )
    assert not Path("report/report.json").exists()
    monkeypatch.setattr(ModelMethod, "stylize", make)
    run(f"{FULL} --model m.safetensors")
    assert len(report()["pairs"]) == 4


def test_models_are_named_after_their_files_or_runs(desk: Path) -> None:
    for name in ("runs/mine/model", "runs/yours/model", "plain"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("m.safetensors", f"{name}.safetensors")
    models = "runs/mine/model.safetensors runs/yours/model.safetensors plain.safetensors soft=m.safetensors,strength=.5"
    run(f"{FULL} --pairs 1 --show 0 " + " ".join(f"--model {name}" for name in models.split()))
    assert rows() == ["mine", "yours", "plain", "soft", *REFERENCES]
    plain, soft = (subject["values"]["ssim"]["mean"] for subject in report()["subjects"][2:4])
    assert plain < soft  # half the strength keeps more of the content


def test_a_broken_picture_is_counted_and_named(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("others/sea__oil.png").write_bytes(b"no picture")
    run(f"{FULL} --pictures others")
    assert len(report()["pairs"]) == 3
    assert "left out 1 pair(s): others/sea__oil.png is not a picture" in capsys.readouterr().out
    assert "sea__oil.png is not a picture" in Path("report/report.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- ArtFID


@pytest.fixture
def art_fid_package(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In the place of the art-fid package; keeps what it was called with, and what lay in the folders then."""
    calls: list[dict[str, Any]] = []

    def compute_art_fid(stylized: str, style: str, content: str, **options: Any) -> float:
        found = {}
        for name, folder in (("stylized", stylized), ("style", style), ("content", content)):
            found[name] = [load_image(path) for path in sorted(Path(folder).iterdir())]
        calls.append({**found, **options})
        return 12.5

    module = ModuleType("art_fid.art_fid")
    module.compute_art_fid = compute_art_fid  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "art_fid", ModuleType("art_fid"))
    monkeypatch.setitem(sys.modules, "art_fid.art_fid", module)
    return calls


def test_art_fid_by_its_package(desk: Path, art_fid_package: list[dict[str, Any]]) -> None:
    run(f"{FULL} --pictures others --artfid --show 0")
    assert [subject["values"]["artfid"]["mean"] for subject in report()["subjects"]] == [12.5] * 3
    others, unchanged, _ = art_fid_package
    assert (others["mode"], others["batch_size"], others["device"]) == ("art_fid", 1, "cpu")
    assert [len(others[name]) for name in ("stylized", "style", "content")] == [4, 4, 4]
    for index, name in enumerate(("hill__ink", "hill__oil", "sea__ink", "sea__oil")):
        assert (others["stylized"][index] == load_image(f"others/{name}.png")).all()
        assert (others["content"][index] == load_image(f"photos/{name.split('__')[0]}.png")).all()
        assert (others["style"][index] == load_image(f"paintings/{name.split('__')[1]}.png")).all()
    assert (unchanged["stylized"][0] == unchanged["content"][0]).all()
    run(f"{FULL} --pictures others --artfid --show 0")
    assert len(art_fid_package) == 3  # kept from the first run
    assert list(Path("report").glob(".artfid*")) == []


def test_without_art_fid_the_reason_is_given_and_the_rest_is_measured(
    desk: Path, art_fid_package: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*folders: str, **options: Any) -> float:
        raise OSError("<urlopen error no route to host>")

    monkeypatch.setattr(sys.modules["art_fid.art_fid"], "compute_art_fid", unreachable)
    run(f"{FULL} --pictures others --artfid --show 0")
    assert missing()["artfid"] == "the art-fid package failed (<urlopen error no route to host>)"
    monkeypatch.setitem(sys.modules, "art_fid", None)
    monkeypatch.delitem(sys.modules, "art_fid.art_fid")
    run(f"{FULL} --pictures others --artfid --show 0")
    assert missing()["artfid"].startswith("its package cannot be imported (")
    assert missing()["artfid"].endswith("): pip install art-fid")
    assert report()["subjects"][0]["values"]["ssim"]["mean"] < 1


# ---------------------------------------------------------------- errors

Complain = Callable[[str], str]


@pytest.fixture
def complain(desk: Path, capsys: pytest.CaptureFixture[str]) -> Complain:
    """Runs a command that has to fail; returns its line."""

    def failing(line: str) -> str:
        assert main(shlex.split(line)) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.count("\n") == 1, errors
        assert errors.startswith("adaattn: ") and "Traceback" not in errors
        return errors.removeprefix("adaattn: ").rstrip("\n")

    return failing


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (FULL.replace("photos", "nowhere"), "nowhere does not exist. Check its name and folder."),
        (FULL.replace("paintings", "nowhere"), "nowhere does not exist. Check its name and folder."),
        (f"{FULL} --pictures peer=nowhere", "nowhere does not exist. Check its name and folder."),
        (f"{FULL} --pictures peer=photos", "no pair is left with the 2 pictures of peer, such as hill: names like "
         "hill__ink are needed, of pairs that the other folders have too. Check names and folders."),
        (f"{FULL} --model best", f"unknown model 'best'; known are {KNOWN}, or a .safetensors file."),
        (f"{FULL} --model x=best", f"unknown model 'best'; known are {KNOWN}, or a .safetensors file."),
        (f"{FULL} --model gone.safetensors", "gone.safetensors: no such weights file. Check the path."),
        (f"{FULL} --model compact,speed=2", "--model compact,speed=2 sets 'speed'; known are attention, temperature, "
         "strength, levels, refine"),
        (f"{FULL} --model m.safetensors,levels=relu2_1", "levels has 'relu2_1'; this model attends at relu3_1, "
         "relu4_1, relu5_1 (or none)"),
        (f"{FULL} --model compact,strength=2", "--model compact,strength=2: strength: 2 is out of range; it must be "
         "between 0 and 1"),
        (f"{FULL} --model compact,attention=all", "--model compact,attention=all: attention: 'all' is unknown; known "
         "are exact, sampled"),
        (f"{FULL} --model m.safetensors --model m.safetensors", "two rows would be called 'm'. Give one another name "
         "with LABEL=."),
        (f"{FULL} --pairs 0", "argument --pairs: 0 is out of range; it must be at least 1. See adaattn evaluate "
         "--help."),
        (f"{FULL} --device teapot", None),
        (FULL.replace("-o report", "-o no/report"), "no is not a folder, so the output cannot be written "
         "there. Create the folder first."),
        (FULL.replace("-o report", "-o m.safetensors"), "m.safetensors is a file; a folder is needed for the "
         "output. Choose another name."),
    ],
)  # fmt: skip
def test_wrong_input(line: str, text: str | None, complain: Complain) -> None:
    found = complain(line)
    assert text is None or found == text
    assert not Path("report/report.json").exists()


def test_a_folder_without_pictures(complain: Complain) -> None:
    Path("empty").mkdir()
    line = "empty holds no picture; at least one is needed. Check the folder or the pattern."
    assert complain(FULL.replace("photos", "empty")) == line
    assert complain(f"{FULL} --pictures empty") == line


def test_missing_network_files(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaattn_core.checkpoints.vgg import load_vgg
    from adaattn_core.evaluation.networks import load_lpips_heads, load_vgg16

    monkeypatch.setattr(command, "load_lpips_heads", load_lpips_heads)
    assert complain(FULL) == "heads.pth: no such weights file. Check the path."
    monkeypatch.setattr(command, "load_vgg16", load_vgg16)
    assert complain(FULL) == "vgg16.pth: no such weights file. Check the path."
    monkeypatch.setattr(command, "load_vgg", load_vgg)
    assert complain(FULL) == "vgg19.pth: no such weights file. Check the path."
    shutil.copy("m.safetensors", "vgg19.safetensors")
    assert complain(FULL.replace("vgg19.pth", "vgg19.safetensors")).startswith("vgg19.safetensors holds no VGG-19")


def test_every_content_broken(complain: Complain) -> None:
    for path in Path("photos").iterdir():
        path.write_bytes(b"no picture")
    assert complain(FULL).startswith(
        "none of the 4 pairs could be measured, the first because photos/hill.png is not a"
    )


def test_a_full_disk_while_measuring(complain: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(self: Any, record: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("adaattn_core.evaluation.runner.Records.add", full)
    assert complain(FULL) == "disk full. Free some space or choose another disk."


def test_labels_and_settings_of_models(desk: Path) -> None:
    parse: Callable[[str], Sequence[Any]] = parse_model
    assert parse("x=m.safetensors,attention=sampled") == ("x", "m.safetensors", {"attention": "sampled"})
    shutil.copy("m.safetensors", "a=b,c.safetensors")
    assert parse("a=b,c.safetensors") == ("a=b,c", "a=b,c.safetensors", {})

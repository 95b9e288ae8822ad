"""Where `adaattn stylize` puts its results, which of them --resume skips, and what happens to a picture that fails."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from adaattn_core import save_image
from adaattn_core.commands import stylize as command
from adaattn_core.commands.shared.results import result_places
from adaattn_core.io.image_files import FoundImage
from adaattn_core.io.images import load_color_and_alpha
from tests.helpers.command_line import MODEL, OIL, call, run
from tests.helpers.small_models import picture

Capture = pytest.CaptureFixture[str]
posix = pytest.mark.skipif(os.name != "posix", reason="links and permissions are those of POSIX")


def put(*names: str) -> None:
    """The same picture under each name: only the name can tell them apart."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save_image(picture(16, 24, seed=1), name)


def files(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir())


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contents that are painted, in order."""
    seen: list[str] = []
    read = command.StylizeJob.read

    def watched(self: command.StylizeJob, job: command.Job) -> command.Pixels | command.Failure:
        seen.append(job.content.as_posix())
        return read(self, job)

    monkeypatch.setattr(command.StylizeJob, "read", watched)
    return seen


# ---------------------------------------------------------------- names


def test_a_picture_that_is_added_changes_no_other_result(folder: Path, painted: list[str]) -> None:
    put("p/a/1.png", "p/c/1.png")
    run(f"stylize p -o o {OIL}")
    assert files("o") == ["a/1.png", "c/1.png"]
    put("p/b/1.png")
    painted.clear()
    run(f"stylize p -o o --resume {OIL}")
    assert painted == ["p/b/1.png"]
    assert files("o") == ["a/1.png", "b/1.png", "c/1.png"]


def test_pictures_that_differ_in_their_suffix_have_results_of_their_own(folder: Path, painted: list[str]) -> None:
    put("p/1.jpg")
    run(f"stylize p -o o {OIL}")
    assert files("o") == ["1.png"]
    put("p/1.png")
    painted.clear()
    run(f"stylize p -o o --resume {OIL}")
    assert painted == ["p/1.png"], "the result of 1.jpg is in 1.png, and it says so"
    assert files("o") == ["1.png", "1.png.png"]
    Path("p/1.jpg").unlink()
    painted.clear()
    run(f"stylize p -o o --resume {OIL}")
    assert painted == ["p/1.png"], "its result is the one in 1.png.png, but it would now be called 1.png"


def found(*paths: str, root: str | None = None) -> list[FoundImage]:
    """Pictures found in a folder, or named one by one."""
    if root is None:
        return [FoundImage(Path(path), Path(Path(path).name), None) for path in paths]
    return [FoundImage(Path(root, path), Path(path), Path(root)) for path in paths]


@pytest.mark.parametrize(
    ("images", "places"),
    [
        (found("sea.jpg", "north/sea.jpg", "a.b.jpg", root="p"), ["sea", "north/sea", "a.b"]),
        (found("1.png", "1.jpg", "x/1.jpg", root="p"), ["1.png", "1.jpg", "x/1"]),
        (found("p/a/1.png", "p/c/1.png", "p/c/2.png"), ["a/1", "c/1", "2"]),
        (found("p/a/1.png", "p/a/1.jpg"), ["1.png", "1.jpg"]),
        (found("p/a/1.png", "p/c/1.png", "p/c/1.jpg"), ["1", "1.png", "1.jpg"]),
        (found("1.png", root="x") + found("1.png", root="y"), ["x/1", "y/1"]),
        (found("1.png", root="x/p") + found("1.png", root="y/p"), ["x/p/1", "y/p/1"]),
    ],
)
def test_places_of_results(images: list[FoundImage], places: list[str]) -> None:
    assert [place.as_posix() for place in result_places(images)] == places


def test_two_folders_of_contents_give_two_folders_of_results(folder: Path) -> None:
    put("p/a/1.png", "p/c/1.png")
    run(f"stylize p/a p/c -o o {OIL}")
    assert files("o") == ["a/1.png", "c/1.png"]


def test_each_style_of_a_folder_has_a_result_of_its_own(folder: Path) -> None:
    put("s/a/x.png", "s/c/x.png", "p/1.png")
    run(f"stylize p/1.png --style s -o o/ {MODEL}")
    assert files("o") == ["a/1__x.png", "c/1__x.png"]


def test_a_folder_in_means_a_folder_out(folder: Path) -> None:
    put("one/1.jpg", "style/x.png")
    run(f"stylize one -o out1 {OIL}")
    run(f"stylize 'one/*.jpg' -o out2 {OIL}")
    run(f"stylize one/1.jpg --style style -o out3 {MODEL}")
    run(f"stylize one -o file.png {OIL}")
    assert [files(name) for name in ("out1", "out2", "out3")] == [["1.png"], ["1.png"], ["1__x.png"]]
    assert Path("file.png").is_file(), "the name of a picture for one picture"


# ---------------------------------------------------------------- --resume


def test_results_in_the_folder_of_the_contents_are_told_apart(
    folder: Path, painted: list[str], capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    put("p/1.jpg", "p/2.jpg", "p/a/3.jpg")
    run(f"stylize p -o p {OIL}")
    results = ["1.png", "2.png", "a/3.png"]
    assert files("p") == sorted([*results, "1.jpg", "2.jpg", "a/3.jpg"])
    Path("p/2.png").unlink()
    painted.clear()
    run(f"stylize p -o p --resume {OIL}")
    assert painted == ["p/2.jpg"]
    run(f"stylize p -o p {OIL}")
    assert files("p") == sorted([*results, "1.jpg", "2.jpg", "a/3.jpg"]), "painted again, without results of results"
    assert caplog.messages[-1] == "3 pictures are results of an earlier run into p and left out of the inputs."


def test_a_picture_of_the_user_is_never_overwritten(folder: Path, capsys: Capture) -> None:
    put("p/1.png", "p/2.jpg", "p/2.png")
    before = Path("p/1.png").read_bytes()
    assert call(f"stylize p -o p {OIL}") == 2
    assert "p/1.png is one of the input pictures and would be overwritten" in capsys.readouterr().err
    assert Path("p/1.png").read_bytes() == before
    assert files("p") == ["1.png", "2.jpg", "2.png"]


def test_results_beside_the_styles_are_no_styles(folder: Path, painted: list[str]) -> None:
    put("s/x.png", "1.png")
    run(f"stylize 1.png --style s -o s {MODEL}")
    run(f"stylize 1.png --style s -o s {MODEL}")
    assert files("s") == ["1__x.png", "x.png"]


@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_resume_paints_what_is_not_done(folder: Path, painted: list[str], damage: str) -> None:
    put("p/1.jpg", "p/2.jpg")
    run(f"stylize p -o o {OIL}")
    data = Path("o/1.png").read_bytes()
    if damage == "other":
        save_image(picture(16, 24, seed=2), "p/1.jpg")
    else:
        Path("o/1.png").write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    painted.clear()
    run(f"stylize p -o o --resume {OIL}")
    assert painted == ["p/1.jpg"]
    assert (Path("o/1.png").read_bytes() == data) == (damage != "other")


def test_resume_takes_results_that_do_not_name_their_content(folder: Path, painted: list[str]) -> None:
    put("p/1.jpg", "p/2.jpg", "o/1.png")
    run(f"stylize p -o o --resume {OIL}")
    assert painted == ["p/2.jpg"]


def test_leftovers_of_a_killed_run_are_removed_even_if_nothing_is_left_to_do(folder: Path) -> None:
    put("p/a/1.jpg", "p/2.jpg")
    run(f"stylize p -o o {OIL}")
    for name in ("o/.adaattn-1234abcd.png", "o/a/.adaattn-1234abcd.png"):
        Path(name).touch()
    run(f"stylize p -o o --resume {OIL}")
    assert files("o") == ["2.png", "a/1.png"]


# ---------------------------------------------------------------- pictures that fail


def test_a_name_that_is_too_long_is_known_first_and_ends_nothing(
    folder: Path, painted: list[str], capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    long = "x" * 250
    put(f"p/{long[:246]}.jpg", *(f"p/{number}.jpg" for number in range(3)), "s/styles.png")
    assert call(f"stylize p --style s -o o {MODEL}") == 2
    assert files("o") == [f"{number}__styles.png" for number in range(3)]
    assert len(caplog.messages) == 1 and "File name too long" in caplog.messages[0]
    assert "1 of 4 pictures failed, the others are done. The first failure: o/xxx" in capsys.readouterr().err
    assert len(painted) == 3


def test_a_result_that_cannot_be_written_ends_nothing(folder: Path, capsys: Capture) -> None:
    put("p/1.jpg", "p/2.jpg", "p/3/4.jpg")
    Path("o/1.png").mkdir(parents=True)
    Path("o/3").touch()
    assert call(f"stylize p -o o {OIL}") == 2
    assert files("o") == ["2.png", "3"]
    error = capsys.readouterr().err
    assert "2 of 3 pictures failed, the others are done. The first failure: o/1.png is a folder, so" in error


def test_a_picture_that_breaks_anything_ends_nothing(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("p/1.jpg", "p/2.jpg", "p/3.jpg")

    def failing_save(image: Tensor, path: Path, **options: Any) -> None:
        if path.name == "1.png":
            raise ZeroDivisionError("by zero")
        save_image(image, path, **options)

    def failing_load(path: Path) -> object:
        if path.name == "2.jpg":
            raise OSError(errno.ESTALE, "Stale file handle")
        return load_color_and_alpha(path)

    monkeypatch.setattr(command, "save_image", failing_save)
    monkeypatch.setattr(command, "load_color_and_alpha", failing_load)
    assert call(f"stylize p -o o {OIL}") == 2
    assert files("o") == ["3.png"]
    assert "2 of 3 pictures failed" in capsys.readouterr().err


def test_an_input_that_vanishes_ends_nothing(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    put("p/1.jpg", "p/2.jpg", "p/3.jpg")
    read = command.StylizeJob.read

    def removing(self: command.StylizeJob, job: command.Job) -> command.Pixels | command.Failure:
        Path("p/2.jpg").unlink(missing_ok=True)
        return read(self, job)

    monkeypatch.setattr(command.StylizeJob, "read", removing)
    assert call(f"stylize p -o o {OIL}") == 2
    assert files("o") == ["1.png", "3.png"]
    assert "1 of 3 pictures failed, the others are done. The first failure: " in capsys.readouterr().err


def test_a_full_disk_ends_the_run_at_once(
    folder: Path, painted: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(*(f"p/{number}.jpg" for number in range(9)))

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert call(f"stylize p -o o {OIL}") == 2
    assert capsys.readouterr().err == (
        "adaattn: disk full while writing o/0.png. Free some space or choose another disk.\n"
    )
    assert len(painted) < 9 and files("o") == []


@posix
def test_a_result_keeps_the_permissions_of_the_file_it_replaces(folder: Path) -> None:
    put("p/1.jpg", "o/1.png")
    Path("o/1.png").chmod(0o600)
    run(f"stylize p -o o {OIL}")
    assert stat.S_IMODE(Path("o/1.png").stat().st_mode) == 0o600


@posix
def test_linked_folders_are_painted(folder: Path) -> None:
    put("elsewhere/2.jpg", "p/1.jpg")
    Path("p/link").symlink_to(folder / "elsewhere")
    Path("p/circle").symlink_to(folder / "p")
    run(f"stylize p -o o {OIL}")
    assert files("o") == ["1.png", "link/2.png"]


def test_an_unreadable_folder_gives_a_line_and_a_failure(
    folder: Path, capsys: Capture, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("p/1.jpg", "p/closed/2.jpg")
    scandir = os.scandir

    def denied(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert call(f"stylize p -o o {OIL}") == 2
    assert files("o") == ["1.png"]
    line = "p/closed cannot be read: Permission denied. Check its permissions."
    assert caplog.messages == [line]
    assert line in capsys.readouterr().err

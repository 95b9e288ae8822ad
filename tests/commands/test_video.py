"""`adaattn video` repaints every frame in order and reports the result or an error in one line."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from adaattn_core import encode_style, load_image, load_model, save_image, save_model, stylize
from adaattn_core.cli import main
from adaattn_core.commands import video as command
from adaattn_core.inference.temporal import TemporalSmoother
from adaattn_core.io.images import from_numpy
from adaattn_core.io.video_reader import open_clip
from adaattn_core.io.video_writer import Writer
from adaattn_core.ops.resize import resize_image
from tests.helpers.full_disk import fill_disk, needs_full
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_clips import frames, read_clip, sound_packets, write_clip

pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')

Capture = pytest.CaptureFixture[str]
PAINT = "--style style.png --model m.safetensors --device cpu --precision float32"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: in.mp4 (48x32, 6 frames, 8 a second, a tone), style.png, ink.png, m.safetensors, out/."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    write_clip("in.mp4", rate=8, sound="aac")
    save_image(picture(32, 32, seed=2), "style.png")
    save_image(picture(40, 32, seed=3), "ink.png")
    save_model(small_model(), "m.safetensors", dtype=torch.float32)
    return tmp_path


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The frames that the command gives to the encoder."""
    written: list[Tensor] = []
    write = Writer.write

    def watched(self: Writer, image: Tensor, frame: Any) -> None:
        written.append(image)
        write(self, image, frame)

    monkeypatch.setattr(Writer, "write", watched)
    return written


def run(line: str) -> None:
    assert main(shlex.split(line)) == 0


@pytest.fixture
def complain(folder: Path, capsys: Capture) -> Callable[..., str]:
    """Runs a command that has to fail; returns its line."""

    def failing(line: str, code: int = 2) -> str:
        assert main(shlex.split(line)) == code
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.count("\n") == 1, errors
        assert list((folder / "out").iterdir()) == [], "something was left behind"
        return errors.removeprefix("adaattn: ").rstrip("\n")

    return failing


def contents(path: str = "in.mp4") -> list[Tensor]:
    with open_clip(path) as clip:
        return [clip.image(frame) for frame in clip.frames()]


def painted(images: list[Tensor], *styles: str, **options: Any) -> list[Tensor]:
    """The results of the library, each frame independently."""
    pictures = [load_image(f"{style}.png") for style in styles or ("style",)]
    return [stylize(load_model("m.safetensors"), image, pictures, **options) for image in images]


def assert_all_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(one, other), f"frame {number}: max {(one - other).abs().max()}"


# ---------------------------------------------------------------- results


def test_a_clip_is_repainted_and_reported_in_one_line(folder: Path, capsys: Capture) -> None:
    run(f"video in.mp4 -o out/a.mp4 {PAINT}")
    output, errors = capsys.readouterr()
    assert re.fullmatch(r"out/a\.mp4  48x32, 6 frames, \d+\.\d s\n", output)
    assert errors == ""
    assert [path.name for path in Path("out").iterdir()] == ["a.mp4"]
    pictures, times = read_clip("out/a.mp4")
    assert times == [Fraction(number, 8) for number in range(6)]
    assert sound_packets("out/a.mp4") == sound_packets("in.mp4")
    steady = TemporalSmoother()
    images = contents()
    for found, content, one in zip(pictures, images, painted(images), strict=True):
        expected = steady(content, one)
        assert float((from_numpy(found) - expected).abs().mean()) < 0.06, "noisy colours of four pixels at a time"


def test_steady_0_repaints_every_frame_independently(folder: Path, written: list[Tensor]) -> None:
    run(f"video in.mp4 -o out/a.mp4 --steady 0 {PAINT}")
    assert_all_equal(written, painted(contents()))


def test_temporal_smoothing_is_that_of_the_library(folder: Path, written: list[Tensor]) -> None:
    run(f"video in.mp4 -o out/a.mp4 --steady .5 {PAINT}")
    steady, images = TemporalSmoother(0.5), contents()
    expected = [steady(content, one) for content, one in zip(images, painted(images), strict=True)]
    assert_all_equal(written, expected)


def test_strength_0_gives_the_frames_back(folder: Path, written: list[Tensor]) -> None:
    run(f"video in.mp4 -o out/a.mp4 --strength 0 {PAINT}")
    assert_all_equal(written, contents())


def test_cuts_are_reported_in_a_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    dark, light = picture(32, 48, seed=1) * 0.3, 1 - picture(32, 48, seed=2) * 0.3
    write_clip("cut.mp4", [dark] * 3 + [light] * 3)
    run(f"video cut.mp4 -o out/a.mp4 {PAINT}")
    assert caplog.messages == ["1 cut found, before frame 4: nothing is blended across a cut"]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--strength 0.4", {"strength": 0.4}),
        ("--temperature 3", {"temperature": 3.0}),
        ("--keep-color", {"keep_color": True}),
        ("--attention sampled --seed 3", {"attention": "sampled", "seed": 3}),
        ("--max-memory-gb 8", {"max_memory_gb": 8}),
    ],
)
def test_options_reach_the_library(folder: Path, written: list[Tensor], words: str, options: dict[str, Any]) -> None:
    run(f"video in.mp4 -o out/a.mp4 --steady 0 --seconds .2 {PAINT} {words}")
    assert_all_equal(written, painted(contents()[:2], **options))


def test_styles_are_mixed_and_masked(folder: Path, written: list[Tensor]) -> None:
    top = torch.zeros(1, 3, 40, 32)
    top[..., :20, :] = 1
    save_image(top, "mask.png")
    masks = "--style-mask none --style-mask mask.png"
    run(f"video in.mp4 -o out/a.mp4 --steady 0 --seconds .1 {PAINT} --style ink.png --style-weights .7,.3 {masks}")
    expected = painted(contents()[:1], "style", "ink", style_weights=[0.7, 0.3], style_masks=[None, top[:, :1]])
    assert_all_equal(written, expected)


def test_size_is_the_short_side_of_the_frames(folder: Path, written: list[Tensor], capsys: Capture) -> None:
    run(f"video in.mp4 -o out/a.mp4 --steady 0 --seconds .1 --size 21 {PAINT}")
    assert_all_equal(written, painted([resize_image(contents()[0], short_side=21)]))
    assert written[0].shape == (1, 3, 21, 32)
    assert "out/a.mp4  32x20, 1 frame, " in capsys.readouterr().out, "codecs take even sides"


def test_only_the_first_seconds(folder: Path) -> None:
    run(f"video in.mp4 -o out/a.mp4 --seconds .5 {PAINT}")
    assert len(read_clip("out/a.mp4")[0]) == 4
    assert max(time for time, _ in sound_packets("out/a.mp4")) < Fraction(1, 2)


def test_a_higher_crf_gives_a_smaller_file(folder: Path) -> None:
    for crf in (5, 45):
        run(f"video in.mp4 -o out/{crf}.mp4 --crf {crf} {PAINT}")
    assert Path("out/45.mp4").stat().st_size < Path("out/5.mp4").stat().st_size


def test_the_style_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def watched(*args: Any, **options: Any) -> Any:
        seen.append(options["seed"])
        return encode_style(*args, **options)

    monkeypatch.setattr("adaattn_core.commands.shared.options.encode_style", watched)
    run(f"video in.mp4 -o out/a.mp4 --seed 3 {PAINT}")
    assert seen == [3]


def test_few_frames_are_held_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded frames that are not written yet are few, so that memory does not grow with the clip."""
    write_clip("long.mp4", frames(count=30))
    waiting, most = 0, 0
    read, write = command.VideoJob.read, command.VideoJob.write

    def reading(self: command.VideoJob, frame: Any) -> Tensor:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return read(self, frame)

    def writing(self: command.VideoJob, frame: Any, made: Any) -> None:
        nonlocal waiting
        write(self, frame, made)
        waiting -= 1

    monkeypatch.setattr(command.VideoJob, "read", reading)
    monkeypatch.setattr(command.VideoJob, "write", writing)
    run(f"video long.mp4 -o out/a.mp4 {PAINT}")
    assert waiting == 0 < most <= 7


def test_sound_that_the_format_cannot_hold_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(f"video in.mp4 -o out/a.webm {PAINT}")
    line = "the sound is left out: a .webm file cannot hold aac; use .mp4 or .mov or .mkv."
    assert caplog.messages == [line]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nope.mp4 -o out/a.mp4", "nope.mp4 does not exist. Check its name and folder."),
        ("out -o out/a.mp4", "out is a folder; a video file is needed. Name a file in it."),
        ("m.safetensors -o out/a.mp4", "m.safetensors is not a video, or is damaged (Invalid data"),
        (
            "in.mp4 -o out/a.avi",
            "out/a.avi ends in '.avi'; one of .mp4, .mov, .mkv, .webm is needed. Rename the output.",
        ),
        (
            "in.mp4 -o nowhere/a.mp4",
            "nowhere is not a folder, so the output cannot be written there. Create the folder first.",
        ),
        ("in.mp4 -o in.mp4", "in.mp4 is one of the input files and would be overwritten. Choose another output."),
        ("in.mp4 -o out/../in.mp4", "out/../in.mp4 is one of the input files and would be overwritten."),
        ("in.mp4 -o out/a.mp4 --style no.png", "no.png does not exist. Check its name and folder."),
        ("in.mp4 -o out/a.mp4 --style-weights 1,2", "2 style weights came for 1 style to mix; one is needed for each"),
        ("in.mp4 -o out/a.mp4 --style-mask a --style-mask b", "2 style masks came for 1 style; one is needed"),
        ("in.mp4 -o out/a.mp4 --steady 1.5", "argument --steady: 1.5 is out of range; it must be between 0 and 1"),
        ("in.mp4 -o out/a.mp4 --seconds 0", "argument --seconds: 0 is out of range; it must be above 0"),
        ("in.mp4 -o out/a.mp4 --crf 52", "argument --crf: 52 is out of range; it must be between 0 and 51"),
        ("in.mp4 -o out/a.mp4 --model huge", "unknown model 'huge'"),
        ("in.mp4 -o out/a.mp4 --content-mask m.png", "unrecognized arguments: --content-mask"),
    ],
)
def test_wrong_input(complain: Callable[..., str], words: str, line: str) -> None:
    before = Path("in.mp4").read_bytes()
    assert complain(f"video {words} --style style.png --device cpu").startswith(line)
    assert Path("in.mp4").read_bytes() == before


def test_a_folder_of_several_styles_is_an_error(complain: Callable[..., str]) -> None:
    Path("styles").mkdir()
    for name in "ab":
        save_image(picture(16, 16), f"styles/{name}.png")
    assert complain("video in.mp4 --style styles -o out/a.mp4") == (
        "--style styles holds 2 pictures; one picture is needed. Name the pictures."
    )


def test_a_damaged_clip_leaves_no_half_file(complain: Callable[..., str]) -> None:
    pictures = [picture(32, 48, seed=seed) for seed in range(24)]
    write_clip("whole.mkv", pictures)
    data = Path("whole.mkv").read_bytes()
    Path("cut.mkv").write_bytes(data[: len(data) // 2])
    line = complain(f"video cut.mkv -o out/a.mp4 {PAINT}")
    assert re.match(r"cut\.mkv is (cut short after|damaged at) frame \d+, \d\.\d\d s \(", line)


def test_missing_packages_are_reported(complain: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'adaattn video needs PyAV and OpenCV. Install them: pip install "adaattn[video]"'
    for package in ("cv2", "av"):
        monkeypatch.setitem(sys.modules, package, None)
        assert complain(f"video in.mp4 -o out/a.mp4 {PAINT}") == line


@pytest.mark.parametrize("step", ["read", "stylize", "write"])
def test_ctrl_c_leaves_nothing_behind(complain: Callable[..., str], monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    done = 0
    work = getattr(command.VideoJob, step)

    def interrupted(*args: Any) -> Any:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt
        return work(*args)

    monkeypatch.setattr(command.VideoJob, step, interrupted)
    assert complain(f"video in.mp4 -o out/a.mp4 {PAINT}", 130) == "interrupted"


def test_ctrl_c_between_frames_waits_for_the_threads(
    complain: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder must not be closed under a thread that uses it."""

    def interrupted(*args: object, **options: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("adaattn_core.runtime.progress.tqdm.update", interrupted)
    assert complain(f"video in.mp4 -o out/a.mp4 {PAINT}", 130) == "interrupted"


@needs_full
def test_a_full_disk(complain: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, Path("out/a.mkv"))
    line = complain(f"video in.mp4 -o out/a.mkv {PAINT}")
    assert line == "disk full while writing out/a.mkv. Free some space or choose another disk."

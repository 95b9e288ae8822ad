"""Video files are read and written with their timestamps, rotation, colours and sound."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core.errors import ImageError, OutputError
from adaattn_core.inference.temporal import TemporalSmoother
from adaattn_core.io.images import from_numpy
from adaattn_core.io.video_reader import Clip, open_clip
from adaattn_core.io.video_writer import FORMATS, open_writer
from tests.helpers.tiny_clips import frames, read_clip, sound_packets, turn, with_noise, write_clip

pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')

CODEC = 4 / 255
"""Mean error of colour that is stored once for four pixels, after encoding twice."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy(source: str, target: str, crf: int = 5, seconds: float | None = None) -> None:
    """Every frame read and written."""
    with open_clip(source) as clip, open_writer(target, clip, crf=crf, seconds=seconds) as writer:
        for frame in clip.frames(seconds):
            writer.write(clip.image(frame), frame)


def assert_alike(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    difference = (found - expected).abs()
    assert float(difference.mean()) < CODEC, f"mean {difference.mean():.4f}, max {difference.max():.4f}"


# ---------------------------------------------------------------- in


def test_frames_are_read_in_order_with_their_timestamps(here: Path) -> None:
    expected = frames()
    write_clip("in.mp4", expected, rate=8)
    with open_clip("in.mp4") as clip:
        assert (clip.size, clip.rate) == ((32, 48), Fraction(8))
        assert (clip.count(), clip.count(0.5)) == (6, 4)
        found = [(frame.time * clip.time_base, clip.image(frame)) for frame in clip.frames()]
    assert [time for time, _ in found] == [Fraction(number, 8) for number in range(6)]
    for (_, image), one in zip(found, expected, strict=True):
        assert_alike(image, one)


def test_only_the_first_seconds_are_read(here: Path) -> None:
    write_clip("in.mp4", rate=8)
    with open_clip("in.mp4") as clip:
        assert len(list(clip.frames(seconds=0.5))) == 4, "the one at .5 s starts after them"
    write_clip("in.mp4", rate=10)
    with open_clip("in.mp4") as clip:
        assert len(list(clip.frames(seconds=0.2))) == 2, "though the float .2 is more than a fifth"


@pytest.mark.parametrize(("suffix", "codec"), [(".mov", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")])
def test_container_formats(here: Path, suffix: str, codec: str) -> None:
    write_clip(f"in{suffix}", codec=codec)
    with open_clip(f"in{suffix}") as clip:
        assert len(list(clip.frames())) == 6


def test_a_gif(here: Path) -> None:
    write_clip("in.gif", codec="gif")
    with open_clip("in.gif") as clip:
        assert [clip.image(frame).shape for frame in clip.frames()] == [(1, 3, 32, 48)] * 6


RIGHT, HALF, LEFT = (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)


@pytest.mark.parametrize(("matrix", "turns"), [(RIGHT, -1), (HALF, 2), (LEFT, 1)])
def test_a_rotated_clip_of_a_phone_is_turned_upright(here: Path, matrix: tuple[int, ...], turns: int) -> None:
    """RIGHT: x' = -y, y' = x, so the top edge becomes the right edge."""
    (expected, *_) = pictures = frames()
    write_clip("in.mp4", pictures)
    turn(Path("in.mp4"), matrix)
    with open_clip("in.mp4") as clip:
        image = clip.image(next(iter(clip.frames())))
        assert clip.size == image.shape[-2:]
    assert_alike(image, expected.rot90(turns, (2, 3)))


def test_colours_follow_the_matrix_that_the_file_declares(here: Path) -> None:
    """The writer declares BT.709. If it were read as BT.601, red would be 12/255 darker."""
    red = torch.tensor([200, 60, 20])[None, :, None, None].expand(1, 3, 32, 32) / 255
    write_clip("in.mp4", [red])
    copy("in.mp4", "out.mp4")
    with open_clip("out.mp4") as clip:
        found = clip.image(next(iter(clip.frames())))
    torch.testing.assert_close(found, red.float(), atol=3 / 255, rtol=0, msg=lambda text: f"8-bit YCbCr: {text}")


# ---------------------------------------------------------------- out


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_copy_has_the_same_frames_and_timestamps(here: Path, suffix: str) -> None:
    expected = frames()
    write_clip("in.mp4", expected, rate=8)
    copy("in.mp4", f"out{suffix}")
    pictures, times = read_clip(f"out{suffix}")
    assert times == [Fraction(number, 8) for number in range(6)]
    for found, one in zip(pictures, expected, strict=True):
        assert_alike(from_numpy(found), one)


def test_timestamps_of_unevenly_spaced_frames_are_preserved(here: Path) -> None:
    import av

    times = [0, 40, 240, 250, 900, 1000]
    write_clip("in.mp4", times=times, rate=10)
    copy("in.mp4", "out.mp4")
    assert read_clip("out.mp4")[1] == read_clip("in.mp4")[1] == [Fraction(time, 1000) for time in times]
    durations = []
    for name in ("in.mp4", "out.mp4"):
        with av.open(name) as container:
            durations.append(container.duration)
    assert durations[0] == durations[1], "the duration of the last frame differs"


def test_the_aspect_ratio_of_pixels_is_preserved(here: Path) -> None:
    import av

    write_clip("in.mp4", aspect=Fraction(4, 3))
    copy("in.mp4", "out.mp4")
    turn(Path("in.mp4"), RIGHT)
    copy("in.mp4", "turned.mp4")
    for name, aspect in (("out.mp4", Fraction(4, 3)), ("turned.mp4", Fraction(3, 4))):
        with av.open(name) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect


def test_an_odd_row_and_column_are_cut_off(here: Path) -> None:
    write_clip("in.mkv", frames(32, 48))
    with open_clip("in.mkv") as clip, open_writer("out.mp4", clip) as writer:
        for frame in clip.frames():
            writer.write(clip.image(frame)[..., :17, :33], frame)
        assert writer.size == (16, 32)
    assert read_clip("out.mp4")[0][0].shape == (16, 32, 3)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "aac"), (".webm", "libopus")])
def test_the_sound_is_copied(here: Path, suffix: str, codec: str) -> None:
    write_clip("in.mkv", sound=codec)
    copy("in.mkv", f"out{suffix}")
    before, after = sound_packets("in.mkv"), sound_packets(f"out{suffix}")
    assert [data for _, data in after] == [data for _, data in before]
    assert max(abs(old - new) for (old, _), (new, _) in zip(before, after, strict=True)) <= Fraction(1, 1000)


def test_sound_and_pictures_are_interleaved(here: Path) -> None:
    """So that a player does not have to seek in the file."""
    import av

    write_clip("in.mp4", frames(count=24), rate=8, sound="aac")
    copy("in.mp4", "out.mp4")
    with av.open("out.mp4") as container:
        packets = [one for one in container.demux() if one.pos is not None and one.dts is not None]
        by_place = sorted(packets, key=lambda one: one.pos or 0)
    times = [float((one.dts or 0) * one.time_base) for one in by_place]
    assert max(max(times[:number]) - time for number, time in enumerate(times) if number) < 1, "FFmpeg's own chunks"


def test_the_sound_ends_at_the_given_seconds(here: Path) -> None:
    write_clip("in.mp4", frames(count=16), rate=8, sound="aac")
    copy("in.mp4", "out.mp4", seconds=1)
    before, after = sound_packets("in.mp4"), sound_packets("out.mp4")
    assert after == [one for one in before if one[0] < 1]


def test_sound_that_the_format_cannot_hold_is_left_out_with_a_warning(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import av

    write_clip("in.mp4", sound="aac")
    copy("in.mp4", "out.webm")
    line = "the sound is left out: a .webm file cannot hold aac; use .mp4 or .mov or .mkv."
    assert caplog.messages == [line]
    with av.open("out.webm") as container:
        assert len(container.streams) == 1


def test_the_index_is_at_the_start_of_the_file(here: Path) -> None:
    write_clip("in.mp4")
    copy("in.mp4", "out.mp4")
    data = Path("out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


# ---------------------------------------------------------------- errors


def complaint(act: Callable[[], object], error_type: type[Exception] = ImageError) -> str:
    with pytest.raises(error_type) as caught:
        act()
    return str(caught.value)


def read_all(path: str) -> None:
    with open_clip(path) as clip:
        for frame in clip.frames():
            clip.image(frame)


def test_files_that_are_not_clips(here: Path) -> None:
    Path("folder").mkdir()
    Path("text.mp4").write_text("hello")
    write_clip("small.mp4", frames(12, 40))
    assert complaint(lambda: open_clip("none.mp4")) == "none.mp4 does not exist. Check its name and folder."
    assert complaint(lambda: open_clip("folder")) == "folder is a folder; a video file is needed. Name a file in it."
    reason = "Invalid data found when processing input"
    assert complaint(lambda: open_clip("text.mp4")) == (
        f"text.mp4 is not a video, or is damaged ({reason}). Convert or export it to MP4."
    )
    assert complaint(lambda: open_clip("small.mp4")) == (
        "small.mp4 is 40x12 pixels; at least 16x16 are needed. Resize the clip first."
    )


def test_a_file_with_sound_only_is_not_a_clip(here: Path) -> None:
    import av

    from tests.helpers.tiny_clips import tone

    with av.open("sound.mkv", "w") as container:
        audio = container.add_stream("aac", rate=48000, layout="mono")
        container.mux([*audio.encode(tone(0.5, audio.format.name)), *audio.encode()])
    assert complaint(lambda: open_clip("sound.mkv")) == (
        "sound.mkv has no video stream, only sound or data. Name a video file."
    )


def test_a_clip_that_is_cut_short(here: Path) -> None:
    """The index at the start declares frames that are missing; FFmpeg ends without an error."""
    write_clip("in.mp4", with_noise(frames(count=24)), rate=8)
    copy("in.mp4", "whole.mp4")
    data = Path("whole.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: len(data) // 2])
    line = complaint(lambda: read_all("cut.mp4"))
    assert line.startswith("cut.mp4 is cut short after frame ") or line.startswith("cut.mp4 is damaged at frame ")
    assert line.endswith("Download or export it again, or use only the part before with --seconds.")
    with open_clip("cut.mp4") as clip:
        assert len(list(clip.frames(seconds=0.25))) == 2, "the part before the damage can be used"


def test_a_clip_that_is_damaged_in_the_middle(here: Path) -> None:
    import av

    write_clip("in.mp4", frames(count=24), rate=8)
    with av.open("in.mp4") as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        place, size = packets[12].pos, packets[12].size
    assert place is not None
    data = bytearray(Path("in.mp4").read_bytes())
    data[place : place + size] = b"\xff" * size
    Path("bad.mp4").write_bytes(data)
    line = complaint(lambda: read_all("bad.mp4"))
    assert "bad.mp4 is damaged at frame " in line
    assert int(line.split("frame ")[1].split(",")[0]) in range(6, 20)


def test_no_frame_in_the_first_seconds(here: Path) -> None:
    write_clip("in.mkv", times=[3000, 3100, 3200, 3300, 3400, 3500], sound="libopus")
    with open_clip("in.mkv") as clip:
        line = complaint(lambda: list(clip.frames(seconds=1)))
    assert line == ("in.mkv has no frame in the first 1 s; its first frame is at 3.00 s. Ask for more seconds.")


def test_output_paths_that_cannot_be_written(here: Path) -> None:
    write_clip("in.mp4")

    def write(path: str) -> None:
        with open_clip("in.mp4") as clip, open_writer(path, clip):
            pytest.fail("the error came too late")

    assert complaint(lambda: write("out.avi")) == (
        "out.avi ends in '.avi'; one of .mp4, .mov, .mkv, .webm is needed. Rename the output."
    )
    assert "nowhere is not a folder" in complaint(lambda: write("nowhere/out.mp4"), OutputError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ImageError])
def test_an_interruption_leaves_no_file(here: Path, error: type[BaseException]) -> None:
    write_clip("in.mp4")
    with pytest.raises(error), open_clip("in.mp4") as clip, open_writer("out.mp4", clip) as writer:
        frame = next(iter(clip.frames()))
        writer.write(clip.image(frame), frame)
        raise error
    assert [path.name for path in here.iterdir()] == ["in.mp4"]


def test_a_playlist_does_not_make_ffmpeg_fetch_files(here: Path) -> None:
    Path("list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    assert complaint(lambda: Clip("list.m3u8")).startswith("list.m3u8 is not a video, or is damaged")


@pytest.mark.slow
def test_importing_loads_neither_package() -> None:
    code = "import sys, adaattn_core.cli, adaattn_core.io.video_reader; print({'av', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_a_missing_package_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError) as caught:
        _ = open_clip("in.mp4") if package == "av" else TemporalSmoother(0.5)
    assert str(caught.value) == ('adaattn video needs PyAV and OpenCV. Install them: pip install "adaattn[video]"')

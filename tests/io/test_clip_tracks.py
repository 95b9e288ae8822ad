"""Sound, subtitles, attached files, chapters and tags of a clip are kept, or a line says what a format cannot hold."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from adaattn_core.io.video_reader import open_clip
from adaattn_core.io.video_writer import open_writer

av = pytest.importorskip("av", reason='needs PyAV: pip install "adaattn[video]"')
REPORTS = Path(__file__).parents[1] / "data" / "reports"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPORTS / "two_sounds.mkv", "in.mkv")
    return tmp_path


def copy(source: str, target: str, seconds: float | None = None) -> None:
    with open_clip(source) as clip, open_writer(target, clip, seconds=seconds) as writer:
        for frame in clip.frames(seconds):
            writer.write(clip.image(frame), frame)


def add_extras(source: str, target: str) -> None:
    """The clip with subtitles in French, two chapters, an attached file, and further tags."""
    with av.open(source) as given, av.open(target, "w") as made:
        copies: dict[int, Any] = {}
        for stream in given.streams:
            copies[stream.index] = made.add_stream_from_template(stream)
            copies[stream.index].metadata.update(stream.metadata)
        text = made.add_mux_stream("subrip")
        text.metadata.update({"language": "fra", "title": "les mots"})
        text.disposition = av.stream.Disposition.forced.value
        made.add_attachment("letters.ttf", "application/x-truetype-font", b"letters")
        made.metadata.update({"title": "my holiday", "artist": "me", "weather": "fine"})
        made.set_chapters([
            {"id": number, "start": 300 * number, "end": 300 * number + 300, "time_base": Fraction(1, 1000),
             "metadata": {"title": title}} for number, title in enumerate(("the sea", "the hill"))
        ])  # fmt: skip
        words = av.Packet(b"bonjour")
        words.pts, words.dts, words.duration, words.time_base, words.stream = 100, 100, 300, Fraction(1, 1000), text
        packets = [packet for packet in given.demux() if packet.dts is not None]
        for packet in packets:
            packet.stream = copies[packet.stream.index]
        made.mux([packets[0], words, *packets[1:]])


def contents(path: str) -> dict[str, Any]:
    """What a file holds beside its pictures."""
    with av.open(path) as container:
        streams = list(container.streams)
        return {
            "languages": [stream.language for stream in streams if stream.type == "audio"],
            "subtitles": [(stream.language, stream.metadata.get("title"), bool(stream.disposition.value & 64))
                          for stream in streams if stream.type == "subtitle"],
            "attached": [(stream.metadata["filename"], stream.data)
                         for stream in streams if stream.type == "attachment"],
            "chapters": [(chapter["start"] * chapter["time_base"], chapter["metadata"]["title"])
                         for chapter in container.chapters()],
            "tags": {key.lower(): value for key, value in container.metadata.items()},
        }  # fmt: skip


def packets(path: str, kind: str) -> list[bytes]:
    with av.open(path) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for stream in streams for packet in container.demux(stream) if packet.size][:99]


@pytest.mark.parametrize(("suffix", "german"), [(".mkv", "deu"), (".mp4", "deu"), (".mov", "ger")])
def test_all_sound_tracks_with_languages_and_the_title(
    here: Path, suffix: str, german: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy("in.mkv", f"out{suffix}")
    found = contents(f"out{suffix}")
    assert found["languages"] == ["eng", german]
    assert found["tags"]["title"] == "my holiday"
    assert caplog.messages == []
    with av.open("in.mkv") as before, av.open(f"out{suffix}") as after:
        for number in (0, 1):
            old, new = ([bytes(packet) for packet in container.demux(audio=number) if packet.size]
                        for container in (before, after))  # fmt: skip
            before.seek(0)
            after.seek(0)
            assert old == new


def test_matroska_keeps_everything(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_extras("in.mkv", "full.mkv")
    copy("full.mkv", "out.mkv")
    found, expected = contents("out.mkv"), contents("full.mkv")
    assert found == expected | {"tags": found["tags"]}
    assert found["subtitles"] == [("fra", "les mots", True)]
    assert found["tags"].items() >= {"title": "my holiday", "artist": "me", "weather": "fine"}.items()
    assert packets("out.mkv", "subtitle") == [b"bonjour"]
    assert caplog.messages == []


def test_what_mp4_cannot_hold_is_said(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_extras("in.mkv", "full.mkv")
    copy("full.mkv", "out.mp4")
    found = contents("out.mp4")
    assert found["chapters"] == [(0, "the sea"), (Fraction(3, 10), "the hill")]
    assert (found["tags"]["title"], found["tags"]["artist"]) == ("my holiday", "me")
    assert caplog.messages == [
        "the subtitles are left out: a .mp4 file cannot hold subrip; use .mkv.",
        "1 attached file is left out of the result.",
        "left out, since a .mp4 file cannot hold them: WEATHER.",
    ]


def test_each_track_that_the_format_cannot_hold_is_named(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy("in.mkv", "out.webm")
    assert caplog.messages == [
        "audio track 1 of 2 (eng) is left out: a .webm file cannot hold aac; use .mp4 or .mov or .mkv.",
        "audio track 2 of 2 (deu) is left out: a .webm file cannot hold aac; use .mp4 or .mov or .mkv.",
    ]


def test_a_preview_ends_all_tracks(here: Path) -> None:
    add_extras("in.mkv", "full.mkv")
    copy("full.mkv", "out.mkv", seconds=0.25)
    found = contents("out.mkv")
    assert found["chapters"] == [(0, "the sea")]
    with av.open("out.mkv") as container:
        for packet in container.demux():
            assert packet.pts is None or packet.pts * packet.time_base < Fraction(1, 4)


def test_further_video_tracks_are_said(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    with av.open("in.mkv") as given, av.open("two.mkv", "w") as made:
        video = given.streams.video[0]
        copies = [made.add_stream_from_template(video) for _ in range(2)]
        for packet in list(given.demux(video)):
            if packet.dts is not None:
                packet.stream = copies[0]
                made.mux(packet)
                packet.stream = copies[1]
                made.mux(packet)
    copy("two.mkv", "out.mkv")
    assert caplog.messages == ["1 further video track is left out of the result."]

"""Video files to frames with timestamps, and the sound as encoded packets.

    with open_clip("in.mp4") as clip, open_writer("out.mp4", clip) as writer:
        smoother = TemporalSmoother()
        for frame in clip.frames():
            content = clip.image(frame)
            writer.write(smoother(content, stylize(model, content, style)), frame)

PyAV does the work. It belongs to the extra [video], so it is imported when it is first used. Times are whole numbers
of `clip.time_base` seconds, counted from the start of the file.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator, Iterator
from fractions import Fraction
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor

from ..errors import ImageError
from ..ops.resize import MIN_SIDE
from .clip_pixels import ClipPixels
from .files import StrPath

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.container.core import Chapter
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

MICROSECONDS = 10**6
_KINDS = ("video", "audio", "subtitle", "attachment", "data")
_TEXT = "SubtitleHandler"
"""Name of the data track by which an MP4 file stores its chapters."""
_INTERLEAVED = 10
"""Seconds by which the tracks of a file may be apart."""
_TECHNICAL = re.compile(
    r"(?i)encoder|major_brand|minor_version|compatible_brands|duration|handler_name|vendor_id|alpha_mode|bps|number_of_|"
    r"_statistics|filename|mimetype"
)


def video_package(name: Literal["av", "cv2"]) -> ModuleType:
    """A package of the extra [video], imported when it is first used.

    Raises:
        ValueError: the package is not installed, or too old.
    """
    try:
        if name == "av":
            import av

            if not hasattr(av.VideoFrame, "color_trc"):
                raise ValueError(f"PyAV {av.__version__} is installed; 17 or newer is needed: pip install -U av")
            return av
        import cv2

        return cv2
    except ImportError as error:
        raise ValueError('adaattn video needs PyAV and OpenCV. Install them: pip install "adaattn[video]"') from error


class Frame(NamedTuple):
    """A decoded frame with its timestamp and its duration, which is 0 if the file does not state it."""

    picture: VideoFrame
    time: int
    duration: int


def open_clip(path: StrPath) -> Clip:
    """Opens a clip of any format that FFmpeg decodes; use it in a `with` block.

    Raises:
        ImageError: the file does not exist, is not a video, is damaged at its start, or has a side under 16 pixels.
        ValueError: PyAV is not installed.
    """
    return Clip(path)


class Clip:
    """The first video stream of a file.

    Attributes:
        size: (height, width) of the upright frames; phones store frames rotated, with the rotation as metadata.
        pixels: the conversion of its frames: upright, in the colours of BT.709, over white.
        rate: average number of frames per second.
        time_base: the unit of timestamps in seconds.
        start: seconds at which the file starts on its own clock; timestamps are counted from there.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = path
        self.container = _open(path)
        try:
            self.stream = self._find_stream()
            self.time_base = self.stream.time_base or Fraction(1, 1000)
            self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
            self.start = Fraction(max(0, self.container.start_time or 0), MICROSECONDS)
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise ImageError(f"{path} holds no frame; at least one is needed. Export the clip again.")
            self.pixels = ClipPixels(path, self._first.picture)
            self.size = self.pixels.size
            if min(self.size) < MIN_SIDE:
                size, needed = f"{self.size[1]}x{self.size[0]}", f"at least {MIN_SIDE}x{MIN_SIDE} are needed"
                raise ImageError(f"{path} is {size} pixels; {needed}. Resize the clip first.")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def count(self, seconds: float | None = None) -> int | None:
        """The approximate number of frames that `frames` gives; None if the file does not state it."""
        length = float(self.container.duration / MICROSECONDS) if self.container.duration else None
        known = self.stream.frames or (None if length is None else round(length * self.rate))
        if seconds is None or known is None:
            return known
        return min(known, max(1, round(seconds * self.rate)))

    def frames(self, seconds: float | None = None) -> Iterator[Frame]:
        """The frames in order; can be called once.

        Args:
            seconds: only frames that start before this time; None for all frames.

        Raises:
            ImageError: the file is damaged or cut short (the message says where), or no frame starts before `seconds`.
        """
        first, end = self._first, _exact(seconds)
        assert first is not None
        if end is not None and first.time * self.time_base >= end:
            starts = f"its first frame is at {float(first.time * self.time_base):.2f} s"
            raise ImageError(f"{self.path} has no frame in the first {seconds:g} s; {starts}. Ask for more seconds.")
        yield first
        for frame in self._decoded:
            if end is not None and frame.time * self.time_base >= end:
                return
            yield frame

    def image(self, frame: Frame) -> Tensor:
        """The upright frame as (1, 3, H, W) in [0, 1], in the size of the clip."""
        return self.pixels.image(frame.picture)

    def _find_stream(self) -> VideoStream:
        cover = video_package("av").stream.Disposition.attached_pic
        for stream in self.container.streams.video:
            if not stream.disposition & cover:
                return stream
        raise ImageError(f"{self.path} has no video stream, only sound or data. Name a video file.")

    def _decode(self) -> Generator[Frame, None, None]:
        """All frames, with timestamps that strictly increase."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        offset = round(self.start / self.time_base)
        last, number, end = -step, 0, Fraction(0)
        audio = [stream for stream in self.container.streams.audio if stream.codec_context]
        decoding_error = video_package("av").error.FFmpegError
        decoder = self._alpha_decoder() or self.stream
        try:
            for packet in self.container.demux(self.stream, *audio):
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream.index != self.stream.index:
                    continue  # audio is read only for its end time
                for picture in decoder.decode(packet):
                    number += 1
                    last = last + step if picture.pts is None else max(picture.pts - offset, last + 1)
                    yield Frame(picture, last, getattr(picture, "duration", 0) or 0)
        except decoding_error as error:
            raise self._damaged(f"damaged at frame {number + 1}", last + step, error.strerror) from error
        length = Fraction(self.container.duration or 0, MICROSECONDS)
        if number and end - self.start < length - max(Fraction(1, 5), length / 10):
            raise self._damaged(f"cut short after frame {number}", last, f"{float(length):.1f} s were announced")

    def _alpha_decoder(self) -> VideoCodecContext | None:
        """The decoder of VP8 and VP9 that reads transparency, which FFmpeg's own leave out; None for other clips."""
        names = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
        name = names.get(self.stream.codec_context.codec.canonical_name)
        if name is None or self.stream.metadata.get("alpha_mode", "0") == "0":
            return None
        decoder: VideoCodecContext = video_package("av").CodecContext.create(name, "r")
        decoder.extradata = self.stream.codec_context.extradata
        return decoder

    def _damaged(self, damage: str, time: int, reason: str | None) -> ImageError:
        seconds = float(max(0, time) * self.time_base)
        advice = "Download or export it again, or use only the part before with --seconds"
        return ImageError(f"{self.path} is {damage}, {seconds:.2f} s ({reason}). {advice}.")


def _open(path: StrPath) -> InputContainer:
    av = video_package("av")
    if not os.path.exists(path):
        raise ImageError(f"{path} does not exist. Check its name and folder.")
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder; a video file is needed. Name a file in it.")
    try:  # no network: a playlist must not make FFmpeg fetch the files that it names
        container: InputContainer = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(f"{path} is not a video, or is damaged ({reason}). Convert or export it to MP4.") from error
    return container


def _exact(seconds: float | None) -> Fraction | None:
    """The simple fraction that a float stands for: 0.2 becomes 1/5, although the float is slightly larger."""
    return None if seconds is None else Fraction(seconds).limit_denominator(MICROSECONDS)


class Tracks:
    """What a clip holds beside its pictures, read through a second handle of the file: sound and subtitles as encoded
    packets, attached files, chapters and tags.

    Attributes:
        streams: sound, then subtitles.
        others: tracks that are not copied, by kind.
    """

    def __init__(self, clip: Clip, seconds: float | None) -> None:
        self.path, self.start, self.end = clip.path, clip.start, _exact(seconds)
        self.container = _open(clip.path)
        by_type = {kind: [stream for stream in self.container.streams if stream.type == kind] for kind in _KINDS}
        self.streams: list[Stream] = [
            stream for kind in ("audio", "subtitle") for stream in by_type[kind] if stream.codec_context
        ]
        self.attachments: list[Any] = by_type["attachment"]
        cover = video_package("av").stream.Disposition.attached_pic
        covers = [stream for stream in by_type["video"] if stream.disposition & cover]
        chapters = self.container.chapters()
        data = [stream for stream in by_type["data"] if not (chapters and stream.metadata.get("handler_name") == _TEXT)]
        unread = [stream for stream in by_type["audio"] + by_type["subtitle"] if not stream.codec_context]
        self.others = {
            "cover picture": len(covers), "further video track": len(by_type["video"]) - len(covers) - 1,
            "data track": len(data), "track of an unknown codec": len(unread),
        }  # fmt: skip
        self.chapters = [entry for chapter in chapters if (entry := self._moved(chapter))]
        self.tags = _without_technical(self.container.metadata)
        self._pending: Packet[Any] | None = None
        self._packets = self.container.demux(*self.streams) if self.streams else iter(())

    def until(self, time: Fraction | None) -> Iterator[Packet[Any]]:
        """The next packets that start before `time` (in seconds); all remaining packets if it is None."""
        while True:
            packet = self._pending or self._next()
            if packet is None:
                return
            starts = Fraction(packet.pts or 0) * packet.time_base
            if self.end is not None and starts >= self.end:
                if starts >= self.end + _INTERLEAVED:
                    self._packets = iter(())
                self._pending = None
                continue
            self._pending = packet if time is not None and starts >= time else None
            if self._pending:
                return
            yield packet

    def _next(self) -> Packet[Any] | None:
        try:
            packet = next((entry for entry in self._packets if entry.dts is not None and entry.pts is not None), None)
        except video_package("av").error.FFmpegError as error:
            raise ImageError(f"the sound of {self.path} is damaged ({error.strerror}). Export it again.") from error
        if packet is not None:
            offset = round(self.start / packet.time_base)
            packet.pts, packet.dts = (packet.pts or 0) - offset, (packet.dts or 0) - offset
        return packet

    def _moved(self, chapter: Chapter) -> Chapter | None:
        """A chapter in milliseconds on the clock of the clip; None if it begins after the end."""
        base = chapter["time_base"] or Fraction(1)
        start, end = (max(Fraction(0), chapter[name] * base - self.start) for name in ("start", "end"))
        if self.end is not None and start >= self.end:
            return None
        end = end if self.end is None else min(end, self.end)
        times: Chapter = {"id": chapter["id"], "start": round(start * 1000), "end": round(end * 1000),
                          "time_base": Fraction(1, 1000), "metadata": chapter["metadata"]}  # fmt: skip
        return times


def _without_technical(metadata: dict[str, str]) -> dict[str, str]:
    """The tags that people write; those that a container or an encoder writes about itself are left out."""
    return {key: value for key, value in metadata.items() if not _TECHNICAL.match(key)}


def track_tags(stream: Stream) -> dict[str, str]:
    """Language and title of a track; an undetermined language counts as none."""
    tags = {key.lower(): value for key, value in _without_technical(stream.metadata).items()}
    return {key: tags[key] for key in ("language", "title") if tags.get(key, "und") != "und"}

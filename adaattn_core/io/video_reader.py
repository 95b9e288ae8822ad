"""Clips in and out: frames decoded with their times, encoded again, and the sound copied beside them.

    with open_clip("in.mp4") as clip, open_writer("out.mp4", clip) as writer:
        steady = Steady()
        for frame in clip.frames():
            content = clip.image(frame)
            writer.write(steady(content, stylize(model, content, style)), frame)

PyAV does the work; it belongs to the extra [video] and is imported late. Times are whole numbers of `clip.time_base`
seconds, counted from where the file starts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import ImageError
from ..ops.resize import MIN_SIDE
from .files import StrPath
from .images import from_numpy

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

MISSING = 'adaattn video needs PyAV and OpenCV. Install them: pip install "adaattn[video]"'
_BT709, _BT601, _LIMITED, _UNKNOWN = 1, 5, 1, 2
MICROSECONDS = 10**6


def load_av() -> ModuleType:
    """The module av.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(MISSING) from error
    return av


class Frame(NamedTuple):
    """A decoded frame, its time and how long it is shown, 0 where the file does not say."""

    picture: VideoFrame
    time: int
    duration: int


def open_clip(path: StrPath) -> Clip:
    """A clip to read, of any kind that FFmpeg decodes; use it in a `with` block.

    Raises:
        ImageError: no such file, not a video, damaged at its start, or under 16 pixels on a side.
        ValueError: PyAV is not installed.
    """
    return Clip(path)


class Clip:
    """The first video stream of a file.

    Attributes:
        size: (height, width), upright: phones store clips lying, with a note how to turn them.
        turns: quarters of a turn to the left that set it upright.
        rate: frames per second on average; `time_base`: seconds, the unit of times.
        start: seconds at which the file starts, by its own clock; times are counted from there.
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
            self.turns = round(self._first.picture.rotation / 90) % 4
            height, width = self._first.picture.height, self._first.picture.width
            self.size = (width, height) if self.turns % 2 else (height, width)
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
        """About how many frames `frames` will give; None where the file does not say."""
        length = float(self.container.duration / MICROSECONDS) if self.container.duration else None
        known = self.stream.frames or (None if length is None else round(length * self.rate))
        if seconds is None or known is None:
            return known
        return min(known, max(1, round(seconds * self.rate)))

    def frames(self, seconds: float | None = None) -> Iterator[Frame]:
        """The frames, once, in order; with `seconds` only those that start in the first so many.

        Raises:
            ImageError: the file is damaged or cut short; the text says where.
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
        """(1, 3, H, W) in [0, 1], upright, in the clip's size."""
        picture = frame.picture
        space = picture.colorspace
        if space == _UNKNOWN:  # as players guess
            space = _BT709 if picture.width >= 1280 or picture.height > 576 else _BT601
        height, width = self.size[::-1] if self.turns % 2 else self.size
        pixels = picture.to_ndarray(
            format="rgb24", width=width, height=height, src_colorspace=space, dst_colorspace=_BT601
        )
        return from_numpy(np.ascontiguousarray(np.rot90(pixels, self.turns)))

    def _find_stream(self) -> VideoStream:
        cover = load_av().stream.Disposition.attached_pic
        for stream in self.container.streams.video:
            if not stream.disposition & cover:
                return stream
        raise ImageError(f"{self.path} has no video in it, only sound or data. Name a video file.")

    def _decode(self) -> Generator[Frame, None, None]:
        """All frames, their times made to rise."""
        step = max(1, round(1 / (self.rate * self.time_base)))
        offset = round(self.start / self.time_base)
        last, number, end = -step, 0, Fraction(0)
        heard = [stream for stream in self.container.streams.audio if stream.codec_context]
        decoding_error = load_av().error.FFmpegError
        try:
            for packet in self.container.demux(self.stream, *heard):
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream.index != self.stream.index:
                    continue  # read for its time alone
                for picture in self.stream.decode(packet):
                    number += 1
                    last = last + step if picture.pts is None else max(picture.pts - offset, last + 1)
                    yield Frame(picture, last, getattr(picture, "duration", 0) or 0)
        except decoding_error as error:
            raise self._damaged(f"damaged at frame {number + 1}", last + step, error.strerror) from error
        length = Fraction(self.container.duration or 0, MICROSECONDS)
        if number and end - self.start < length - max(Fraction(1, 5), length / 10):
            raise self._damaged(f"cut short after frame {number}", last, f"{float(length):.1f} s were announced")

    def _damaged(self, what: str, time: int, reason: str | None) -> ImageError:
        seconds = float(max(0, time) * self.time_base)
        cure = "Download or export it again, or take what is before with --seconds"
        return ImageError(f"{self.path} is {what}, {seconds:.2f} s ({reason}). {cure}.")


def _open(path: StrPath) -> InputContainer:
    av = load_av()
    if not os.path.exists(path):
        raise ImageError(f"{path} does not exist. Check its name and folder.")
    if os.path.isdir(path):
        raise ImageError(f"{path} is a folder; a video file is needed. Name a file in it.")
    try:  # a file that names others, as playlists do, must not make us fetch them
        container: InputContainer = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(f"{path} is not a video, or is damaged ({reason}). Convert or export it to MP4.") from error
    return container


def _exact(seconds: float | None) -> Fraction | None:
    """As it was meant: .2 is a fifth, not a hair more."""
    return None if seconds is None else Fraction(seconds).limit_denominator(MICROSECONDS)


class Sound:
    """The first audio stream of a clip as it is stored; the file is opened again, to be read at its own pace."""

    def __init__(self, clip: Clip, seconds: float | None) -> None:
        self.path, self.start, self.end = clip.path, clip.start, _exact(seconds)
        self.container = _open(clip.path)
        streams = [stream for stream in self.container.streams.audio if stream.codec_context]
        self.stream: AudioStream | None = streams[0] if streams else None
        self._coming: Packet[Any] | None = None
        self._packets = self.container.demux(self.stream) if self.stream else iter(())

    def until(self, time: Fraction | None) -> Iterator[Packet[Any]]:
        """Packets that start before that time, in seconds, and were not given before; all the rest without one."""
        while True:
            packet = self._coming or self._next()
            if packet is None:
                return
            starts = Fraction(packet.pts or 0) * packet.time_base
            if self.end is not None and starts >= self.end:
                self._packets = iter(())
                return
            self._coming = packet if time is not None and starts >= time else None
            if self._coming:
                return
            yield packet

    def _next(self) -> Packet[Any] | None:
        try:
            packet = next((one for one in self._packets if one.dts is not None and one.pts is not None), None)
        except load_av().error.FFmpegError as error:
            raise ImageError(f"the sound of {self.path} is damaged ({error.strerror}). Export it again.") from error
        if packet is not None:
            offset = round(self.start / packet.time_base)
            packet.pts, packet.dts = (packet.pts or 0) - offset, (packet.dts or 0) - offset
        return packet

"""Frames to video files, with the timestamps and the sound of the clip that they come from."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import ImageError
from .files import StrPath, atomic_path, is_stream
from .images import to_numpy
from .video_reader import _BT601, _BT709, _LIMITED, Clip, Frame, Sound, video_package

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffix -> FFmpeg's name of the container format."""
FASTSTART = {"movflags": "+faststart"}
"""Puts the index at the start of the file, so that a player can start before it has the whole file."""
DEFAULT_CRF = 18
LARGEST_CRF = 51
_PASS_DURATIONS = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: otherwise the duration of the last frame is lost


def check_clip_output(path: StrPath) -> None:
    """Raises an ImageError if the suffix of `path` is not a known video format; the folder is checked later."""
    suffix = container_suffix(path)
    if suffix not in FORMATS:
        raise ImageError(f"{path} ends in {suffix!r}; one of {', '.join(FORMATS)} is needed. Rename the output.")


def container_suffix(path: StrPath) -> str:
    """The suffix that names the container format; a stream without a suffix gets Matroska."""
    return Path(path).suffix.lower() or (".mkv" if is_stream(path) else "")


@contextmanager
def open_writer(path: StrPath, clip: Clip, *, crf: int = DEFAULT_CRF, seconds: float | None = None) -> Iterator[Writer]:
    """Opens a file to write, with the timestamps, pixel aspect ratio and sound of `clip`; it is complete or absent.

    Args:
        path: ends in .mp4, .mov, .mkv (H.264) or .webm (VP9).
        clip: the source of the frames.
        crf: constant rate factor, 0 to 51; lower values give better quality and a larger file.
        seconds: the end of the sound; None for all of it.

    Raises:
        ImageError: another suffix.
        OutputError: a folder that does not exist, or a full disk.
    """
    check_clip_output(path)
    with atomic_path(path) as temporary:
        writer = Writer(temporary, clip, suffix=container_suffix(path), crf=crf, seconds=seconds)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class Writer:
    """Encodes frames and copies the sound up to the time of each frame; see `open_writer`."""

    def __init__(self, path: Path, clip: Clip, *, suffix: str, crf: int, seconds: float | None) -> None:
        self.clip, self.crf = clip, crf
        self.suffix, self.format = suffix, FORMATS[suffix]
        options = FASTSTART if self.format in ("mp4", "mov") else {}
        self.container = video_package("av").open(str(path), "w", format=self.format, options=options)
        self.stream: VideoStream | None = None
        self.sound = Sound(clip, seconds)
        self.audio: AudioStream | None = None
        self.frames = 0
        self.size = (0, 0)
        """(height, width) of the file, known after the first frame."""

    def write(self, image: Tensor, frame: Frame) -> None:
        """Encodes a picture with the timestamp of a frame.

        An odd last row or column is cut off, since the codecs store one colour sample for 2 x 2 pixels.

        Args:
            image: (1, 3, H, W) in [0, 1].
            frame: the frame of the source that the picture replaces.
        """
        height, width = image.shape[-2] // 2 * 2, image.shape[-1] // 2 * 2
        if self.stream is None:
            self.size = height, width
            self.stream = self._add_stream(height, width)
            self.audio = self._add_sound()
        picture = video_package("av").VideoFrame.from_ndarray(to_numpy(image[..., :height, :width]), format="rgb24")
        # Differs from the default, BT.601: players assume BT.709 for large frames, and the file declares BT.709.
        picture = picture.reformat(
            format="yuv420p", src_colorspace=_BT601, dst_colorspace=_BT709, dst_color_range=_LIMITED
        )
        picture.pts, picture.time_base, picture.duration = frame.time, self.clip.time_base, frame.duration
        self._copy_sound(frame.time * self.clip.time_base)
        self.container.mux(self.stream.encode(picture))
        self.frames += 1

    def finish(self) -> None:
        """Writes the frames that the encoder still holds, the rest of the sound, and the index."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())
            self._copy_sound(None)
        self.container.close()

    def close(self) -> None:
        """Closes all files, after `finish` or instead of it."""
        with suppress(Exception):  # an earlier error is already being raised
            self.container.close()
        self.sound.container.close()

    def _add_stream(self, height: int, width: int) -> VideoStream:
        # No B frames, whose storage order differs from their display order: MP4 would then store wrong durations for
        # frames at uneven intervals.
        codec, options = "libx264", {"crf": str(self.crf), "bf": "0"}
        if self.format == "webm":
            codec, options = "libvpx-vp9", {"crf": str(self.crf), "b": "0", "cpu-used": "4", "row-mt": "1"}
        stream: VideoStream = self.container.add_stream(codec, rate=self.clip.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = self.clip.time_base
        context.flags |= _PASS_DURATIONS
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        aspect = self.clip.stream.sample_aspect_ratio
        if aspect:  # the aspect ratio of a pixel, which stylization does not change
            context.sample_aspect_ratio = 1 / aspect if self.clip.turns % 2 else aspect
        return stream

    def _add_sound(self) -> AudioStream | None:
        stream = self.sound.stream
        if stream is None:
            return None
        names = {stream.codec_context.name, stream.codec_context.codec.canonical_name}
        if not names & self.container.supported_codecs:
            alternatives = [suffix for suffix, name in FORMATS.items() if names & _sound_codecs(name)]
            advice = f"use {' or '.join(alternatives)}" if alternatives else "no other output format can hold it either"
            codec = stream.codec_context.codec.canonical_name
            logger.warning("the sound is left out: a %s file cannot hold %s; %s.", self.suffix, codec, advice)
            return None
        added: AudioStream = self.container.add_stream_from_template(stream)
        return added

    def _copy_sound(self, time: Fraction | None) -> None:
        if self.audio is not None:
            for packet in self.sound.until(time):
                packet.stream = self.audio
                self.container.mux(packet)


def _sound_codecs(name: str) -> set[str]:
    """Names of the codecs that a container format can hold."""
    with video_package("av").open(io.BytesIO(), "w", format=name) as container:
        codecs: set[str] = container.supported_codecs
    return codecs

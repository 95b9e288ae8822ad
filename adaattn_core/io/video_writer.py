"""Frames to video files, with the timestamps, the sound, the subtitles and the tags of their clip."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import ImageError
from .clip_pixels import BT601, BT709
from .files import StrPath, atomic_path, is_stream, wrong_suffix
from .images import to_numpy
from .video_reader import Clip, Frame, Tracks, track_tags, video_package

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffix -> FFmpeg's name of the container format."""
_PICTURE_SUBTITLES = {"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"}
"""Subtitles of discs, which Matroska holds; FFmpeg names only codecs that it can also encode."""
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "fra": "fre", "zho": "chi", "nld": "dut", "ces": "cze", "ell": "gre", "fas": "per", "isl": "ice",
    "ron": "rum", "slk": "slo", "msa": "may", "mkd": "mac", "hye": "arm", "kat": "geo", "eus": "baq", "cym": "wel",
    "sqi": "alb", "mya": "bur", "bod": "tib",
}  # fmt: skip
"""ISO 639-2 codes for terminology -> for bibliography, which FFmpeg's table of QuickTime languages has."""
FASTSTART = {"movflags": "+faststart"}
"""Puts the index at the start of the file, so that a player can start before it has the whole file."""
DEFAULT_CRF = 18
LARGEST_CRF = 51
_LIMITED = 1  # AVCOL_RANGE_MPEG
_PASS_DURATIONS = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: otherwise the duration of the last frame is lost


def check_clip_output(path: StrPath) -> None:
    """Raises an ImageError if the suffix of `path` is not a known video format; the folder is checked later."""
    suffix = container_suffix(path)
    if suffix not in FORMATS:
        raise ImageError(wrong_suffix(path, suffix, FORMATS))


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
        self.path, self.tracks = path, Tracks(clip, seconds)
        self.copies: dict[int, Stream] = {}
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
            self._add_tracks()
        picture = video_package("av").VideoFrame.from_ndarray(to_numpy(image[..., :height, :width]), format="rgb24")
        # Differs from the default, BT.601: players assume BT.709 for large frames, and the file declares BT.709.
        picture = picture.reformat(
            format="yuv420p", src_colorspace=BT601, dst_colorspace=BT709, dst_color_range=_LIMITED
        )
        picture.pts, picture.time_base, picture.duration = frame.time, self.clip.time_base, frame.duration
        self._copy_tracks(frame.time * self.clip.time_base)
        self.container.mux(self.stream.encode(picture))
        self.frames += 1

    def finish(self) -> None:
        """Writes the frames that the encoder still holds, the rest of the sound, and the index."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())
            self._copy_tracks(None)
        self.container.close()
        if self.stream is not None:
            self._warn_lost_tags(self.path)

    def close(self) -> None:
        """Closes all files, after `finish` or instead of it."""
        with suppress(Exception):  # an earlier error is already being raised
            self.container.close()
        self.tracks.container.close()

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
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = _LIMITED
        aspect = self.clip.stream.sample_aspect_ratio
        if aspect:  # the aspect ratio of a pixel, which stylization does not change
            context.sample_aspect_ratio = 1 / aspect if self.clip.pixels.orientation.is_transposed else aspect
        return stream

    def _add_tracks(self) -> None:
        """Adds what the clip holds beside its pictures; a line says what the format cannot hold."""
        counts = Counter(stream.type for stream in self.tracks.streams)
        numbers: Counter[str] = Counter()
        for stream in self.tracks.streams:
            numbers[stream.type] += 1
            if _holds(self.container, stream):
                copy = self.container.add_stream_from_template(stream)
                _copy_tags(stream, copy, self.suffix)
                self.copies[stream.index] = copy
            else:
                noun = "the sound is" if stream.type == "audio" else "the subtitles are"
                if counts[stream.type] > 1:
                    language = stream.language or "no language"
                    noun = f"{stream.type} track {numbers[stream.type]} of {counts[stream.type]} ({language}) is"
                self._warn_left_out(noun, stream)
        _copy_tags(self.clip.stream, self.stream, self.suffix)
        for attachment in self.tracks.attachments:
            if self.format == "matroska":
                mimetype = attachment.mimetype or "application/octet-stream"
                self.container.add_attachment(
                    attachment.metadata.get("filename", "attachment"), mimetype, attachment.data
                )
        self.container.metadata.update(self.tracks.tags)
        if self.tracks.chapters:
            self.container.set_chapters(self.tracks.chapters)
        others = {**self.tracks.others}
        if self.format != "matroska":
            others["attached file"] = len(self.tracks.attachments)
        for noun, count in others.items():
            if count:
                logger.warning("%d %s%s left out of the result.", count, noun, " is" if count == 1 else "s are")

    def _warn_left_out(self, noun: str, stream: Stream) -> None:
        alternatives = []
        for suffix, name in FORMATS.items():
            with video_package("av").open(io.BytesIO(), "w", format=name) as container:
                if _holds(container, stream):
                    alternatives.append(suffix)
        advice = f"use {' or '.join(alternatives)}" if alternatives else "no other output format can hold it either"
        codec = stream.codec_context.codec.canonical_name
        logger.warning("%s left out: a %s file cannot hold %s; %s.", noun, self.suffix, codec, advice)

    def _copy_tracks(self, time: Fraction | None) -> None:
        for packet in self.tracks.until(time):
            copy = self.copies.get(packet.stream.index)
            if copy is not None:
                packet.stream = copy
                self.container.mux(packet)

    def _warn_lost_tags(self, path: Path) -> None:
        """Says which tags, languages, titles and chapters are not in the file that was written."""
        with video_package("av").open(str(path)) as written:
            kept = {key.lower() for key in written.metadata}
            lost = sorted(key for key in self.tracks.tags if key.lower() not in kept)
            for old, new in self.copies.items():
                source, copy = self.tracks.container.streams[old], written.streams[new.index]
                missing = track_tags(source).keys() - track_tags(copy).keys()
                lost += [f"the {name} of track {new.index}" for name in sorted(missing)]
            if len(written.chapters()) < len(self.tracks.chapters):
                lost.append("chapters")
        if lost:
            names = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
            logger.warning("left out, since a %s file cannot hold them: %s.", self.suffix, names)


def _copy_tags(source: Stream, copy: Stream | None, suffix: str) -> None:
    """Copies language, title and role (default, forced, for the deaf) of a track."""
    if copy is None:
        return
    tags = track_tags(source)
    if suffix == ".mov" and "language" in tags:
        tags["language"] = _QUICKTIME_LANGUAGES.get(tags["language"], tags["language"])
    copy.metadata.update(tags)
    copy.disposition = source.disposition.value  # type: ignore[assignment]  # PyAV 17 takes only numbers


def _holds(container: OutputContainer, stream: Stream) -> bool:
    """Whether a container format can hold the encoded packets of a stream."""
    names = {stream.codec_context.name, stream.codec_context.codec.canonical_name}
    codecs = container.supported_codecs | (_PICTURE_SUBTITLES if container.format.name == "matroska" else set())
    return bool(names & codecs)

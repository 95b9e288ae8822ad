"""Clips of a few small frames, with a tone beside them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adaattn_core.io.images import to_numpy
from tests.helpers.small_models import picture

TONE_RATE = 48000


def frames(height: int = 32, width: int = 48, count: int = 6) -> list[Tensor]:
    """A smooth picture that moves two pixels to the left with every frame; each (1, 3, height, width). Smooth, since
    codecs store colour for four pixels at a time."""
    coarse = picture(height // 8 + 1, width // 8 + 3, seed=5)
    wide = functional.interpolate(coarse, (height, width + 2 * count), mode="bicubic").clamp(0, 1)
    return [wide[..., 2 * number : 2 * number + width] for number in range(count)]


def with_noise(contents: Sequence[Tensor], strength: float = 0.15) -> list[Tensor]:
    """The contents with noise that is new in each: flicker, as of frames that are stylized independently."""
    generator = torch.Generator().manual_seed(1)
    return [(one + strength * (torch.rand(one.shape, generator=generator) - 0.5)).clamp(0, 1) for one in contents]


def write_clip(
    path: str | Path,
    pictures: Sequence[Tensor] | None = None,
    *,
    rate: int = 8,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    sound: str | None = None,
    codec: str = "libx264",
    aspect: Fraction | None = None,
) -> None:
    """H.264 as a rule, all but lossless; `times` in `time_base` for frames that do not come evenly; with a tone of
    440 Hz as long as the frames where `sound` names a codec; `aspect` is a pixel's."""
    import av

    pictures = frames() if pictures is None else pictures
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            codec, rate=rate, options={"crf": "5", "bf": "0"} if codec == "libx264" else {}
        )
        stream.height, stream.width = pictures[0].shape[-2:]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times:
            stream.codec_context.time_base = time_base
        audio: Any = container.add_stream(sound, rate=TONE_RATE, layout="mono") if sound else None
        for number, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(to_numpy(image), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio:
            container.mux([*audio.encode(tone(len(pictures) / rate, audio.format.name)), *audio.encode()])


def tone(seconds: float, layout: str) -> Any:  # noqa: ANN401 - av may be missing
    import av

    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * TONE_RATE)) / TONE_RATE)
    samples = wave.astype(np.float32) if layout.startswith("flt") else (wave * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format=layout, layout="mono")
    frame.sample_rate, frame.pts = TONE_RATE, 0
    return frame


def turn(path: Path, matrix: Sequence[int]) -> None:
    """Writes the first four numbers (a, b, c, d) of a track's matrix into an MP4 file, as a phone does.

    Source: ISO/IEC 14496-12, tkhd: x' = a x + c y, y' = b x + d y, in units of 1/65536; version 0 has it at byte 40 of
    the body. The first track is the video.
    """
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[start + place : start + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))


def read_clip(path: str | Path) -> tuple[list[Any], list[Fraction]]:
    """Frames as arrays, (H, W, 3) uint8, and when they are shown, in seconds."""
    import av

    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
        base = container.streams.video[0].time_base or Fraction(1)
        return [one.to_ndarray(format="rgb24", src_colorspace=1, dst_colorspace=5) for one in found], [
            (one.pts or 0) * base for one in found
        ]


def sound_packets(path: str | Path) -> list[tuple[Fraction, bytes]]:
    """When each begins, in seconds, and what it holds."""
    import av

    with av.open(str(path)) as container:
        return [
            ((packet.pts or 0) * packet.time_base, bytes(packet))
            for packet in container.demux(audio=0)
            if packet.size and packet.pts is not None
        ]

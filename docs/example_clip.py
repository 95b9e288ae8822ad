"""Makes examples/shore.mp4 anew: a slow pan over examples/ramparts.jpg, with the sound of waves.

    python docs/example_clip.py

The sound is noise that swells and ebbs; nothing is recorded. Needs PyAV: pip install "adaattn[video]"
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from adaattn_core.io.images import load_image, to_numpy
from adaattn_core.ops.resize import resize_image

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "examples" / "shore.mp4"
RATE, FRAMES, STEP = 8, 24, 3
HEIGHT, WIDTH = 240, 320
SOUND_RATE = 24000


def main() -> None:
    wide = resize_image(load_image(ROOT / "examples" / "ramparts.jpg"), short_side=HEIGHT + 16)
    with av.open(str(TARGET), "w", options={"movflags": "+faststart"}) as container:
        video: Any = container.add_stream("libx264", rate=RATE, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = container.add_stream("aac", rate=SOUND_RATE, layout="mono", bit_rate=48000)
        for number in range(FRAMES):
            left, top = STEP * number, 16 * number // FRAMES
            frame = wide[..., top : top + HEIGHT, left : left + WIDTH]
            container.mux(video.encode(av.VideoFrame.from_ndarray(to_numpy(frame), format="rgb24")))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(waves(FRAMES / RATE)[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        container.mux([*audio.encode(sound), *audio.encode()])
    print(f"{TARGET.name}  {TARGET.stat().st_size / 1000:.0f} kB")


def waves(seconds: float) -> NDArray[np.float32]:
    """Noise whose spectrum falls off, and which swells every second and a half."""
    count = round(seconds * SOUND_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(count))
    spectrum /= 1 + np.arange(len(spectrum)) / 1500
    noise = np.fft.irfft(spectrum, count)
    swell = 0.35 + 0.65 * np.sin(np.pi * np.arange(count) / SOUND_RATE / 1.5) ** 2
    return (0.25 * swell * noise / np.abs(noise).max()).astype(np.float32)


if __name__ == "__main__":
    main()

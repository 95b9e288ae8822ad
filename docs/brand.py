"""Make docs/icon.png and docs/banner.jpg, the pack's pictures in the Comfy registry, from the example pictures.

Run in the repository: `python docs/brand.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adaattn_core import load_image, load_model, stylize
from adaattn_core.io.images import to_pil

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
SMOOTH = 4
"""Outlines are drawn this many times larger and then shrunk."""


def crop(name: str, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
    """A part of an example picture, enlarged to (height, width)."""
    part = load_image(EXAMPLES / f"{name}.jpg")[..., top : top + height, left : left + width]
    return F.interpolate(part, size=size, mode="bicubic").clamp(0, 1)


def painted(content: Tensor, style: str) -> Image.Image:
    return to_pil(stylize(load_model(), content, load_image(EXAMPLES / f"{style}.jpg")))


def right_of(size: tuple[int, int], x: float, lean: float, wave: float) -> Image.Image:
    """A mask of (width, height), white to the right of a line through x at half height: leaning, waving once."""
    width, height = (side * SMOOTH for side in size)
    edge = []
    for row in range(height + 1):
        share = row / height
        offset = lean * (0.5 - share) + wave * math.sin(2 * math.pi * share)
        edge.append((width * (x + offset), row))
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([*edge, (width, height), (width, 0)], fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def icon(side: int = 400) -> Image.Image:
    """The photograph on the left, its painting on the right, with round corners."""
    photo = crop("coffee", 0, 85, 400, 400, (640, 640))
    small = (side, side)
    result = to_pil(photo).resize(small)
    result.paste("white", mask=right_of(small, 0.485, 0.25, 0.09))
    result.paste(painted(photo, "auvers").resize(small), mask=right_of(small, 0.515, 0.25, 0.09))
    corners = Image.new("L", (side * SMOOTH, side * SMOOTH))
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, *corners.size), radius=side * SMOOTH // 6, fill=255)
    result.putalpha(corners.resize(small, Image.Resampling.LANCZOS))
    return result


def banner(width: int = 1344, height: int = 576) -> Image.Image:
    """One photograph from left to right in five paintings, and the pack's name."""
    photo = crop("coffee", 4, 0, 257, 600, (height, width))
    result = to_pil(photo)
    styles = ("great_wave", "auvers", "ejiri", "composition_viii", "poppies")
    for place, style in enumerate(styles, start=1):
        x = place / (len(styles) + 1)
        result.paste("white", mask=right_of((width, height), x - 0.002, 0.12, 0))
        result.paste(painted(photo, style), mask=right_of((width, height), x + 0.002, 0.12, 0))
    return titled(result, "AdaAttN", "any picture in the style of any other")


def titled(picture: Image.Image, title: str, line: str) -> Image.Image:
    """A name and a line below it at the bottom left, on a shade that fades upwards."""
    width, height = picture.size
    shade = Image.linear_gradient("L").resize((width, height // 2))
    picture.paste("black", (0, height - height // 2), shade.point(lambda level: level * 4 // 5))
    draw = ImageDraw.Draw(picture)
    large, small = ImageFont.load_default(height // 6), ImageFont.load_default(height // 16)
    draw.text((width // 28, height - height // 9), line, "white", small, anchor="ls")
    draw.text((width // 28, height - height // 5), title, "white", large, anchor="ls")
    return picture


if __name__ == "__main__":
    icon().save(DOCS / "icon.png", optimize=True)
    banner().save(DOCS / "banner.jpg", quality=88)

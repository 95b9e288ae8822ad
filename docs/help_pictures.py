"""Makes every picture of ComfyUI's help pages anew, with the default model and the pictures in examples/.

    python docs/help_pictures.py [NAME ...]

Each function below is one picture: web/docs/pictures/NAME.jpg, a strip of pictures side by side. Numbers are the only
words in them, since the help pages come in several languages.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adaattn_core import encode_style, load_model, refine, stylize
from adaattn_core.checkpoints.vgg import load_vgg
from adaattn_core.evaluation.metrics import patch_distance
from adaattn_core.inference import attention_map as maps
from adaattn_core.inference import mixing
from adaattn_core.inference.stages import (
    ImageFeatures,
    StylizedFeatures,
    decode,
    encode_style_features,
    extract_features,
    transfer,
)
from adaattn_core.inference.temporal import ClipOptions, ClipStylizer
from adaattn_core.io.images import load_image, load_mask, to_pil
from adaattn_core.io.video_reader import open_clip
from adaattn_core.models.encoder import Features
from adaattn_core.models.fusion import StyleFeatures
from adaattn_core.models.model import StyleTransferModel
from adaattn_core.ops.masks import feather_mask
from adaattn_core.ops.resize import resize_image

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "web" / "docs" / "pictures"
WIDTH = 960
"""Of a strip: the help panel is about half as wide on an ordinary screen, and as wide on a sharp one."""
GAP = 6
STEP = 3
LARGEST_BYTES = 60_000
QUALITIES = (88, 84, 80, 75, 70, 65, 60, 55, 50)

Tile = Image.Image


# Material


@cache
def model() -> StyleTransferModel:
    return load_model()


@cache
def example(name: str) -> Tensor:
    return load_image(ROOT / "examples" / f"{name}.jpg")


@cache
def subject(name: str) -> Tensor:
    """White where an example picture has its subject."""
    return load_mask(ROOT / "examples" / "masks" / f"{name}.png")


@cache
def seen(name: str) -> ImageFeatures:
    return extract_features(model().encoder, example(name))


@cache
def levels(name: str) -> Features:
    """All that the encoder sees: more than attention reads."""
    with torch.no_grad():
        seen: Features = model().encoder(example(name))
    return seen


def encoded(name: str, mask: Tensor | None = None) -> StyleFeatures:
    return encode_style_features(model().fusion, seen(name).as_dict(), mask=mask)


def painting(
    content: str, style: str, mask: Tensor | None = None, style_mask: Tensor | None = None
) -> StylizedFeatures:
    """What Apply AdaAttN gives."""
    features = seen(content)
    stylized = transfer(model().fusion, features.as_dict(), features.picture, [encoded(style, style_mask)])
    return stylized._replace(mask=mask)


def decoded(work: StylizedFeatures) -> Tensor:
    """What Decode AdaAttN gives."""
    return decode(model().decoder, work)


# Pictures side by side


def tile(picture: Tensor, label: str = "") -> Tile:
    """A picture (1, 3 or 1, H, W), with a number in its corner."""
    made = to_pil(picture.expand(-1, 3, -1, -1))
    if label:
        font = ImageFont.load_default(size=max(16, made.height // 12))
        pen = ImageDraw.Draw(made)
        box = pen.textbbox((0, 0), label, font=font)
        pad = box[3] // 4
        pen.rectangle((0, 0, box[2] + 2 * pad, box[3] + 2 * pad), fill="black")
        pen.text((pad, pad), label, font=font, fill="white")
    return made


def strip(tiles: Sequence[Tile]) -> Tile:
    """Tiles of one height, side by side on grey, WIDTH pixels together."""
    room = WIDTH - GAP * (len(tiles) - 1)
    height = round(room / sum(one.width / one.height for one in tiles))
    sheet = Image.new("RGB", (WIDTH, height), "#808080")
    left = 0
    for number, one in enumerate(tiles):
        width = WIDTH - left if number == len(tiles) - 1 else round(height * one.width / one.height)
        sheet.paste(one.resize((width, height), Image.Resampling.LANCZOS), (left, 0))
        left += width + GAP
    return sheet


def as_jpeg(picture: Tile) -> bytes:
    """The best quality that LARGEST_BYTES hold."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= LARGEST_BYTES:
            break
    else:
        raise ValueError(f"{buffer.tell()} bytes at quality {QUALITIES[-1]}; at most {LARGEST_BYTES} are allowed")
    return buffer.getvalue()


def lit(picture: Tensor, mask: Tensor) -> Tensor:
    """A picture, dark where its mask is black."""
    return picture * (0.15 + 0.85 * mask)


def false_colors(features: Tensor) -> Tensor:
    """(1, C, H, W) features -> (1, 3, H, W): their three main directions as red, green and blue."""
    rows = rearrange(features[0].double(), "c h w -> (h w) c")
    rows = rows - rows.mean(dim=0)
    _, directions = torch.linalg.eigh(rows.T @ rows)
    main = directions[:, -3:].flip(1)
    main = main * main.gather(0, main.abs().argmax(dim=0, keepdim=True)).sign()  # a direction has no sign of its own
    values = rows @ main
    low, high = values.quantile(0.02, dim=0), values.quantile(0.98, dim=0)
    colors = ((values - low) / (high - low)).clamp(0, 1).float()
    small = rearrange(colors, "(h w) c -> 1 c h w", h=features.shape[-2])
    return torch.nn.functional.interpolate(small, scale_factor=max(1, 256 // small.shape[-2]), mode="nearest")


def ringed(picture: Tensor, point: tuple[float, float]) -> Tile:
    """A picture with a ring around a point."""
    made = to_pil(picture)
    x, y, radius = point[0] * made.width, point[1] * made.height, made.height / 24
    pen = ImageDraw.Draw(made)
    for color, width in (("black", 9), ("white", 5)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color, width=width)
    return made


# The pictures


def style_and_result() -> list[Tile]:
    result = stylize(model(), example("coffee"), example("auvers"))
    return [tile(example("coffee")), tile(example("auvers")), tile(result)]


class Dial(NamedTuple):
    """A dial at five values, and what it is turned on. paint: value, content and style -> the picture."""

    values: tuple[float, float, float, float, float]
    content: str
    style: str
    paint: Callable[[float, Tensor, Tensor], Tensor]
    short_side: int = 256

    def pictures(self) -> list[Tensor]:
        content, style = (
            resize_image(example(name), short_side=self.short_side) for name in (self.content, self.style)
        )
        return [self.paint(value, content, style) for value in self.values]


def refined(steps: float, content: Tensor, style: Tensor) -> Tensor:
    result = stylize(model(), content, style)
    return refine(result, content, style, steps=int(steps)) if steps else result


DIALS = {
    "strength": Dial(
        (0, 0.25, 0.5, 0.75, 1), "coffee", "auvers",
        lambda value, content, style: stylize(model(), content, style, strength=value),
    ),
    "temperature": Dial(
        (0.05, 0.2, 1, 4.5, 20), "chelsea", "composition_viii",
        lambda value, content, style: stylize(model(), content, style, temperature=value),
    ),
    "stroke_size": Dial(
        (0, 3, 4.5, 6, 8), "ramparts", "auvers",
        lambda value, content, style: stylize(model(), content, style, stroke_size=value),
    ),
    "refine_steps": Dial((0, 25, 50, 75, 100), "coffee", "auvers", refined, short_side=192),
}  # fmt: skip


def dial(name: str) -> list[Tile]:
    """The strip of a dial; prints how far its pictures are from the patches of the style (see docs/evaluation.md)."""
    one, vgg = DIALS[name], load_vgg(normalized=True)
    pictures = one.pictures()
    with torch.no_grad():
        patches = [vgg(resize_image(x, short_side=256))["relu4_1"] for x in (example(one.style), *pictures)]
    for value, picture in zip(one.values, patches[1:], strict=True):
        print(f"{name} {value:g}: patch distance {float(patch_distance(picture, patches[0])):.3f}")
    return [tile(picture, f"{value:g}") for value, picture in zip(one.values, pictures, strict=True)]


def style_size() -> list[Tile]:
    style = example("composition_viii")
    sizes = (96, 192, min(style.shape[-2:]))
    return [
        tile(stylize(model(), example("coffee"), resize_image(style, short_side=size)), str(size)) for size in sizes
    ]


def keep_color() -> list[Tile]:
    made = [stylize(model(), example("coffee"), example("auvers"), keep_color=keep) for keep in (False, True)]
    return [tile(example("coffee")), *map(tile, made)]


def mask() -> list[Tile]:
    around = feather_mask(1 - subject("astronaut"), 8)
    result = decoded(painting("astronaut", "auvers", mask=around))
    return [tile(example("astronaut")), tile(around), tile(result)]


def region() -> list[Tile]:
    cup, sky = feather_mask(subject("coffee"), 4), 1 - subject("auvers")
    result = decoded(painting("coffee", "auvers", mask=cup, style_mask=sky))
    return [tile(lit(example("coffee"), cup)), tile(lit(example("auvers"), sky)), tile(result)]


def regions() -> list[Tile]:
    person = feather_mask(subject("astronaut"), 8)
    styles = [example("auvers"), example("great_wave")]
    result = stylize(model(), example("astronaut"), styles, region_masks=[person, None])
    return [*map(tile, (example("astronaut"), person, *styles, result))]


def mix() -> list[Tile]:
    works = [painting("chelsea", style) for style in ("auvers", "moulin")]
    shares = ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))
    labels = ("1 : 0", "1 : 1", "0 : 1")
    return [
        tile(decoded(mixing.mix_paintings(works, share)), label) for share, label in zip(shares, labels, strict=True)
    ]


def mix_masks() -> list[Tile]:
    cup = feather_mask(subject("coffee"), 12)
    works = [painting("coffee", "auvers"), painting("coffee", "great_wave")]
    result = decoded(mixing.mix_paintings(works, None, [cup, 1 - cup]))
    return [tile(cup), tile(example("auvers")), tile(example("great_wave")), tile(result)]


def features() -> list[Tile]:
    picture = example("coffee")
    return [tile(picture), *(tile(false_colors(levels("coffee")[name])) for name in ("relu3_1", "relu4_1", "relu5_1"))]


def model_parts() -> list[Tile]:
    work = painting("coffee", "auvers")
    return [
        tile(example("coffee")),
        tile(false_colors(levels("coffee")["relu4_1"])),
        tile(false_colors(work.fused.deep)),
        tile(decoded(work)),
    ]


def attention_map() -> list[Tile]:
    tiles = []
    for point in ((0.5, 0.2), (0.55, 0.9)):
        weights = maps.attention_map(model().fusion, seen("ramparts"), seen("auvers"), point, "relu4_1", temperature=3)
        heatmap = maps.overlay_heatmap(weights, example("auvers"), opacity=0.6)
        tiles += [ringed(example("ramparts"), point), tile(heatmap)]
    return tiles


def refinement() -> list[Tile]:
    content, style = (resize_image(example(name), short_side=256) for name in ("coffee", "auvers"))
    result = stylize(model(), content, style)
    return [tile(style), tile(result), tile(refine(result, content, style, steps=60))]


def steady() -> list[Tile]:
    """A pan of `STEP` pixels a frame, so that the motion is known to the pixel."""
    wide = resize_image(example("ramparts"), short_side=288)
    contents = [wide[..., STEP * number : STEP * number + 352] for number in range(8)]
    shown = [tile(contents[-1])]
    for weight in (0.0, 0.9):
        stylizer = ClipStylizer(model(), [encode_style(model(), example("great_wave"))], ClipOptions(steady=weight))
        results = [stylizer.smooth(one, stylizer.paint(one)) for one in contents]
        difference = (results[-1][..., :-STEP] - results[-2][..., STEP:]).abs().mean(dim=1, keepdim=True)
        shown += [tile(results[-1])] if not weight else []
        shown.append(tile((6 * difference).clamp(0, 1)))
    return shown


def example_clip() -> list[Tile]:
    with open_clip(ROOT / "examples" / "shore.mp4") as clip:
        shown = [clip.image(frame) for frame in clip.frames()]
    return [tile(shown[0]), tile(shown[len(shown) // 2]), tile(shown[-1])]


def example_pictures() -> list[Tile]:
    names = ("astronaut", "auvers", "great_wave")
    return [tile(example("coffee")), tile(subject("coffee")), *(tile(example(name)) for name in names)]


PICTURES: dict[str, Callable[[], list[Tile]]] = {
    made.__name__: made
    for made in (
        style_and_result, style_size, keep_color, mask, region, regions, mix, mix_masks,
        features, model_parts, attention_map, refinement, steady, example_pictures, example_clip,
    )
} | {name: partial(dial, name) for name in DIALS}  # fmt: skip


def main(names: Sequence[str]) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        data = as_jpeg(strip(PICTURES[name]()))
        (TARGET / f"{name}.jpg").write_bytes(data)
        print(f"{name}.jpg  {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Make the pictures of the page that paints, adaattn_core/demo/pictures, from those in examples.

Run in the repository: `python docs/demo_pictures.py`. Styles are reduced to the size of the page's largest strokes;
photos stay as they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from adaattn_core.demo.site import PHOTOS, PICTURE_FOLDER, STYLES

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT_SIDE, QUALITY = 384, 82


def reduced(image: Image.Image) -> Image.Image:
    """A picture with a short side of SHORT_SIDE pixels."""
    scale = SHORT_SIDE / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    PICTURE_FOLDER.mkdir(exist_ok=True)
    for name in STYLES:
        with Image.open(EXAMPLES / f"{name}.jpg") as image:
            reduced(image.convert("RGB")).save(PICTURE_FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
    for name in PHOTOS:
        shutil.copyfile(EXAMPLES / f"{name}.jpg", PICTURE_FOLDER / f"{name}.jpg")

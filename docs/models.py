"""Draw docs/models.jpg: three styles with each built-in model, and with refinement after the full-size one.

Run in the repository: `python docs/models.py`; it takes about three minutes on two cores. A row is one content in one
style; the columns are content, style, compact, base, and base refined in 60 steps.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from adaattn_core import load_image, load_model, refine, save_image, stylize
from adaattn_core.commands.compare import center_square
from adaattn_core.ops.resize import resize_image

ROOT = Path(__file__).parents[1]
TARGET = Path(__file__).with_name("models.jpg")
PAIRS = (("astronaut", "great_wave"), ("ramparts", "auvers"), ("chelsea", "composition_viii"))
SIDE = 320
STEPS = 60


def example(name: str) -> Tensor:
    return center_square(load_image(ROOT / "examples" / f"{name}.jpg"), SIDE)


def main() -> None:
    compact, base = load_model("compact"), load_model("base")
    rows = []
    for names in PAIRS:
        content, style = map(example, names)
        small, large = stylize(compact, content, style), stylize(base, content, style)
        rows.append(torch.cat([content, style, small, large, refine(large, content, style, steps=STEPS)], dim=3))
    save_image(resize_image(torch.cat(rows, dim=2), short_side=840), TARGET)


if __name__ == "__main__":
    main()

"""Checkerboard artefacts of pictures: detail that is unevenly distributed over a grid of 4 pixels.

    python -m benchmarks.mesh FOLDER [FOLDER ...] [--period 4]

Prints the mean and the largest `losses.checkerboard_loss` of each folder. Photographs have some as well, by chance and
by JPEG's blocks, so compare the folder of the results with that of the contents. Files that were resized or cropped
after the stylisation do not show it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from adaattn_core.errors import ImageError
from adaattn_core.io.image_files import find_images
from adaattn_core.io.images import load_image
from adaattn_core.training.losses import MESH_PERIOD, checkerboard_loss


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mesh", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--period", type=int, default=MESH_PERIOD, help="period of the grid in pixels")
    args = parser.parse_args(argv)
    for folder in args.folders:
        try:
            values = [float(checkerboard_loss(load_image(path), args.period)) for path in find_images(folder)]
        except ImageError as error:
            parser.error(str(error))
        print(f"{folder}: {sum(values) / len(values):.3f} mean of {len(values)}, {max(values):.3f} largest")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How much of a mesh pictures show: detail that is spread unevenly over a grid of 4 pixels (`losses.mesh_loss`).

    python -m benchmarks.mesh FOLDER [FOLDER ...] [--period 4]

The mean over each folder's pictures, and the largest. Photographs have some, by chance and by JPEG's blocks, so put
the contents' folder beside that of the results. Results whose files were scaled or cut show none.
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
    parser.add_argument("--period", type=int, default=MESH_PERIOD, help="pixels to a cell of the grid")
    args = parser.parse_args(argv)
    for folder in args.folders:
        try:
            found = [float(checkerboard_loss(load_image(path), args.period)) for path in find_images(folder)]
        except ImageError as error:
            parser.error(str(error))
        print(f"{folder}: {sum(found) / len(found):.3f} in the mean of {len(found)}, {max(found):.3f} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())

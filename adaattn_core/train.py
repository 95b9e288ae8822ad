"""Train a model on two folders of pictures: `python -m adaattn_core.train`, the same as `adaattn train`.

Training has three stages; a full-size model whose encoder is the frozen VGG-19 needs only the last.

1. distill: the encoder, fitted to the VGG-19 by linear algebra (training/initialization.py), learns to predict its
   features through 1x1 convolutions that are dropped afterwards;
2. reconstruct: self pairs (training/dataset.py) and a pixel loss. Colours and texture have to pass through attention;
3. style: the losses of the paper, with a share of self pairs.

Each step uses random generators seeded by (seed, step), so a resumed run equals an uninterrupted one, on the CPU bit
for bit.
"""

from __future__ import annotations

import sys

from .errors import TrainingError as TrainingError
from .training.loop import train as train
from .training.run_checkpoint import CHECKPOINT as CHECKPOINT
from .training.trainer import Trainer as Trainer

if __name__ == "__main__":
    from .cli import main  # imported here, as the command line imports this module

    sys.exit(main(["train", *sys.argv[1:]]))

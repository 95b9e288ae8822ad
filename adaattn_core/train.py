"""Training: folders of pictures in, one weights file out.

Three stages, of which a model with a frozen full-size encoder needs only the last:

1. distill: the encoder, fitted to the VGG-19 by linear algebra (training/initialization.py), learns to predict its features better,
   through throw-away 1x1 convolutions;
2. reconstruct: self pairs (data.TrainingPairs), pixel loss: palette and texture have to come through the attention;
3. style: the losses of the paper, with some self pairs kept in.

Each step draws from generators seeded by (seed, step), so a resumed run equals an uninterrupted one, bit for bit on
the CPU.
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

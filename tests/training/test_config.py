"""The settings of a training run: learning rates by hand, and values that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adaattn_core.models.encoder import LEVELS
from adaattn_core.runtime.distributed import DistributedContext
from adaattn_core.train import Trainer
from tests.helpers.training_runs import Configure


def test_learning_rates_by_hand(configure: Configure) -> None:
    config = configure(
        distill_steps=3, reconstruct_steps=1, steps=4, warmup_steps=2, lr=8.0, pretrain_lr=6.0, encoder_lr_scale=0.5
    )
    assert [config.learning_rates(step)[1] for step in range(4)] == [3, 6, 6, 3]  # warm-up starts anew with each stage
    cosine = [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]  # at 0, 45, 90, 135 degrees, from 1 to 0
    style = [8 * warm * (0.01 + 0.99 * share) for warm, share in zip((0.5, 1, 1, 1), cosine, strict=True)]
    assert [config.learning_rates(step)[1] for step in range(4, 8)] == pytest.approx(style)
    assert [config.learning_rates(step)[0] for step in range(8)] == pytest.approx(
        [3, 6, 6, 1.5, *(x / 2 for x in style)]
    )
    with pytest.raises(ValueError, match="step 8 is past the end of the run"):
        config.learning_rates(8)


@pytest.mark.parametrize(("batch", "processes", "text"), [(5, 2, "4 or 8"), (2, 2, "4"), (10, 4, "8 or 16")])
def test_a_batch_that_does_not_divide_is_refused(batch: int, processes: int, text: str, configure: Configure) -> None:
    config = configure(batch=batch, accumulate=2)
    with pytest.raises(ValueError) as caught:
        Trainer(config, distributed=DistributedContext(0, processes))
    assert str(caught.value) == (
        f"batch is {batch}; it must be a multiple of {2 * processes} ({processes} processes, each with 2 parts one "
        f"after another). Use --batch {text}."
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch": 0}, "batch is 0; it must be at least 1"),
        ({"crop": 31}, "crop is 31; it must be at least 32"),
        ({"lr": -1.0}, "lr is -1.0; it must be at least 0"),
        ({"lr": math.nan}, "lr is nan; it must be at least 0"),
        ({"lr": math.inf}, "lr is inf; a finite number is needed"),
        ({"width": math.inf}, "width is inf; a finite number is needed"),
        ({"damage": 1.5}, "damage is 1.5; it must be at most 1"),
        (
            {"teacher": "base", "kind": "video"},
            "a teacher works with kind image only; leave it out, or set kind to image",
        ),
        ({"self_pairs": 1.5}, "self_pairs is 1.5; it must be at most 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"width": 0.0}, "width is 0.0; it must be above 0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; known are adam, adamw, muon"),
        ({"precision": "float64"}, "precision is 'float64'; known are auto, float32, bfloat16, float16"),
        ({"architecture": "huge"}, "architecture is 'huge'; known are compact, base, published"),
        ({"local_levels": ()}, f"local_levels is empty; one or more of {', '.join(LEVELS)} is needed"),
        ({"global_levels": ("conv1",)}, f"global_levels is 'conv1'; one or more of {', '.join(LEVELS)} is needed"),
        (
            {"freeze_encoder": True},
            "freeze_encoder needs architecture base or published at width 1: the encoder is the VGG-19 itself",
        ),
        ({"frame_gap": 2}, "frame_gap is 2, and only kind video is trained on pairs of frames"),
        (
            {"steps": 0, "distill_steps": 0, "reconstruct_steps": 0},
            "no stage has a step to run; set steps to at least 1",
        ),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], text: str, configure: Configure) -> None:
    with pytest.raises(ValueError) as caught:
        configure(**changes)
    assert str(caught.value) == text

"""What a training run can be told, and which stage each of its steps belongs to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..models.config import COMPACT, VIDEO_LEVELS, ModelConfig
from ..models.encoder import LEVELS

Architecture = Literal["compact", "base"]
Kind = Literal["image", "video"]
Optimizer = Literal["adam", "adamw", "muon"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Stage = Literal["distill", "reconstruct", "style"]

MAX_SEED = 2**32 - 1
"""Torch's CPU generator takes 32 bits."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Steps count optimiser steps; crops are squares in pixels."""

    content: str
    """Content pictures: a folder, searched recursively; a .txt with the path of one on each line; or tar files, such as
    photos-{000..009}.tar or a folder of them."""
    style: str
    """Style pictures, likewise."""
    vgg: str
    """VGG-19 for the losses: a file, or "torchvision"."""
    output: str
    """Run folder: model.safetensors, checkpoints/, samples/, losses.csv, losses.svg."""
    steps: int = 50_000
    """Steps of the style stage; the paper trains about 50,000."""
    distill_steps: int = 1500
    """Steps of the distill stage; not run with a frozen encoder."""
    reconstruct_steps: int = 1500
    """Steps of the reconstruct stage."""
    batch: int = 8
    """Pairs in each step, over all processes."""
    accumulate: int = 1
    """Parts in which each process computes a step, one after another: less memory, the same gradients."""
    styles_per_content: int = 1
    """Styles of its part of the step that each content is painted in: more pictures from the same features, at most
    as many as the part has."""
    crop: int = 256
    """Side of the squares cut from the pictures; at least 32."""
    lr: float = 1e-4
    """Learning rate of the style stage, after warm-up; a cosine takes it to a hundredth."""
    pretrain_lr: float = 1e-3
    """Learning rate of the first two stages."""
    encoder_lr_scale: float = 0.25
    """Encoder's share of the learning rate in the last two stages."""
    deep_lr_scale: float = 1.0
    """Share of the learning rate for what only the levels below relu3_1 go through; 0 leaves it as it starts. Lower it,
    to 0.05 say, where the log warns that the decoder no longer sees relu4_1 and relu5_1."""
    warmup_steps: int = 100
    """Steps over which each stage's learning rate rises from 0."""
    optimizer: Optimizer = "adam"
    """How gradients become steps; the paper takes adam. muon needs fewer steps (training/muon.py)."""
    weight_decay: float = 0.0
    """Pull of the weights towards 0, as the optimizer defines it."""
    clip_norm: float = 10.0
    """Gradients longer than this are shortened to it; 0 leaves them."""
    ema_decay: float = 0.999
    """Moving average of the weights, which is what model.safetensors holds; 0 keeps the weights themselves."""
    architecture: Architecture = "compact"
    """Shapes of the model: the small built-in one, or the published full-size one."""
    kind: Kind = "image"
    """What the model is for: image (softmax attention at three levels), or video (cosine attention at relu3_1, trained
    on pairs of frames not to flicker)."""
    width: float = 1.0
    """Factor on every channel count of the architecture."""
    freeze_encoder: bool = False
    """Use the VGG-19 of the losses as the encoder and leave it as it is ("base" at width 1 only)."""
    init: str = ""
    """Weights file to start from, instead of at random; its architecture (and frozen encoder) is taken over."""
    refit_attention: bool = False
    """With init: fit queries and keys to the VGG-19 again, as for a new model."""
    global_weight: float = 10.0
    """Weight of the global style loss."""
    relative_style: bool = False
    """Measure the global style loss as relative distances, so that all styles weigh alike; otherwise the paper's
    squared distances."""
    local_weight: float = 3.0
    """Weight of the local feature loss."""
    content_weight: float = 0.0
    """Weight of the content loss, which the paper does not have."""
    pixel_weight: float = 20.0
    """Weight of the pixel loss on self pairs, in the style stage."""
    identity_weight: float = 0.0
    """Weight of the identity loss: contents and styles painted in themselves should stay as they are."""
    color_weight: float = 0.0
    """Weight of the colour loss: the palette of the result should be the style's."""
    mesh_weight: float = 0.0
    """Weight of the mesh loss: no column or row of relu3_1's grid should have more detail than the others."""
    similarity_weight: float = 10.0
    """Weight of the image similarity loss between two frames, for kind video; 0 trains on single pictures."""
    frame_gap: int = 0
    """Where the second frame of a pair comes from, for kind video: 0 moves a still picture a little; N takes up to the
    N-th picture after the first in its folder, so that each clip needs a folder of its own."""
    self_pairs: float = 0.2
    """Share of self pairs kept in the style stage, rounded to whole pairs of a batch."""
    global_levels: tuple[str, ...] = LEVELS[1:]
    """VGG-19 levels of the global style loss."""
    local_levels: tuple[str, ...] = LEVELS[2:]
    """VGG-19 levels of the local feature loss."""
    content_levels: tuple[str, ...] = LEVELS[3:4]
    """VGG-19 levels of the content loss."""
    similarity_levels: tuple[str, ...] = LEVELS[1:4]
    """VGG-19 levels of the image similarity loss."""
    local_samples: int = 4096
    """The local target looks at no more than that many random style positions (exact up to 256-pixel crops on
    relu3_1): an approximation, for speed; 0 looks at all."""
    vgg_floor: float = 0.2
    """Floor of the per-channel normalisation of the VGG-19 (losses.normalize_activations); 0 takes its weights as
    they are, which only suits an already normalised file."""
    seed: int = 0
    """Of all that is random; the same seed and settings give the same run."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1, mps, ..."""
    precision: Precision = "auto"
    """Of convolutions; auto is bfloat16 where the device computes it natively, else float32. float16 is for GPUs
    without bfloat16 (before NVIDIA's Ampere): gradients are scaled, and steps whose gradients overflow are left out."""
    compile: bool = False
    """Compile encoder, decoder and VGG-19 with torch.compile: minutes at the start, faster steps. Needs a C++ compiler
    on a CPU, triton on a GPU."""
    workers: int = 1
    """Processes that read pictures; 0 reads them in the training process."""
    checkpoint_every: int = 500
    """Steps between saves."""
    keep_checkpoints: int = 3
    """Checkpoints kept: latest.pt and the ones before it, as step-N.pt."""
    sample_every: int = 500
    """Steps between pictures in samples/."""
    tensorboard: bool = False
    """Write losses, samples and pairs per second for TensorBoard too, in tensorboard/ of the run folder."""

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, choices in CHOICES:
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"{name} is {getattr(self, name)!r}; known are {known}")
        for name in ("global_levels", "local_levels", "content_levels", "similarity_levels"):
            _check_levels(name, getattr(self, name))
        if self.freeze_encoder and (self.architecture, self.width) != ("base", 1.0):
            raise ValueError("freeze_encoder needs architecture base at width 1: the encoder is the VGG-19 itself")
        if self.frame_gap and self.kind != "video":
            raise ValueError(f"frame_gap is {self.frame_gap}, and only kind video is trained on pairs of frames")
        if not self.stage_ends["style"]:
            raise ValueError("no stage has a step to run; set steps to at least 1")

    def _check_numbers(self) -> None:
        minima = {
            **dict.fromkeys(
                ("batch", "accumulate", "styles_per_content", "checkpoint_every", "keep_checkpoints", "sample_every"), 1
            ),
            **dict.fromkeys(("steps", "distill_steps", "reconstruct_steps", "warmup_steps", "workers"), 0),
            **dict.fromkeys(
                ("lr", "pretrain_lr", "encoder_lr_scale", "deep_lr_scale", "weight_decay", "clip_norm", "ema_decay"), 0
            ),
            **dict.fromkeys(("global_weight", "local_weight", "content_weight", "pixel_weight", "self_pairs"), 0),
            **dict.fromkeys(("identity_weight", "color_weight", "mesh_weight", "similarity_weight", "frame_gap"), 0),
            **dict.fromkeys(("local_samples", "vgg_floor", "seed"), 0),
            "crop": 32,
        }
        for name, least in minima.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in (*minima, "width"):
            if getattr(self, name) == math.inf:
                raise ValueError(f"{name} is inf; a finite number is needed")
        for name, most in (("self_pairs", 1), ("ema_decay", 1), ("seed", MAX_SEED)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {most}")
        if not self.width > 0:
            raise ValueError(f"width is {self.width}; it must be above 0")

    @property
    def stage_ends(self) -> dict[Stage, int]:
        """First step after each stage, in order."""
        distill = 0 if self.freeze_encoder else self.distill_steps
        return {
            "distill": distill,
            "reconstruct": distill + self.reconstruct_steps,
            "style": distill + self.reconstruct_steps + self.steps,
        }

    @property
    def paints_frames(self) -> bool:
        """Whether the style stage paints a second frame beside each content."""
        return self.kind == "video" and self.similarity_weight > 0

    @property
    def self_items(self) -> int:
        """Self pairs in each batch of the style stage."""
        return round(self.self_pairs * self.batch)

    def check_divisible(self, processes: int) -> None:
        """ValueError unless the batch divides into equal parts."""
        parts = processes * self.accumulate
        if self.batch % parts:
            near = sorted({max(1, self.batch // parts) * parts, (self.batch // parts + 1) * parts})
            raise ValueError(
                f"batch is {self.batch}; it must be a multiple of {parts} ({processes} processes, each with "
                f"{self.accumulate} parts one after another). Use --batch {' or '.join(map(str, near))}."
            )

    def stage(self, step: int) -> tuple[Stage, int, int]:
        """Name, step within the stage, and length of the stage that a step belongs to."""
        start = 0
        for name, end in self.stage_ends.items():
            if step < end:
                return name, step - start, end - start
            start = end
        raise ValueError(f"step {step} is past the end of the run")

    def weight(self, loss: str, stage: Stage) -> float:
        """What a loss counts in the total of a stage."""
        return float(getattr(self, f"{loss}_weight")) if stage == "style" else 1.0

    def learning_rates(self, step: int) -> tuple[float, float]:
        """Learning rates of a step: of the encoder, and of all the rest; `deep_lr_scale` takes its share of these."""
        stage, position, length = self.stage(step)
        warm = min(1.0, (position + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if stage == "distill":
            return self.pretrain_lr * warm, self.pretrain_lr * warm
        falling = 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * position / length))
        rest = warm * (self.lr * falling if stage == "style" else self.pretrain_lr)
        return rest * self.encoder_lr_scale, rest

    def ema_decay_at(self, step: int) -> float:
        """Share of the averaged weights that a step keeps: 0 before the style stage, then rising to `ema_decay`."""
        stage, position, _ = self.stage(step)
        return min(self.ema_decay, (1 + position) / (10 + position)) if stage == "style" else 0.0

    def model_config(self) -> ModelConfig:
        """Shapes of the model to train."""
        base = {"compact": COMPACT, "base": ModelConfig()}[self.architecture]
        sized = replace(base, channels=tuple(max(8, 8 * round(c * self.width / 8)) for c in base.channels))
        if self.kind == "image":
            return sized
        projections, cells = (numbers and numbers[:1] for numbers in (sized.projection_channels, sized.style_cells))
        return replace(
            sized, levels=VIDEO_LEVELS, similarity="cosine", projection_channels=projections, style_cells=cells
        )


CHOICES = (("architecture", Architecture), ("kind", Kind), ("optimizer", Optimizer), ("precision", Precision))
"""Settings with a closed list of values."""


def _check_levels(name: str, levels: Sequence[str]) -> None:
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels:
        came = ", ".join(map(repr, unknown)) or "empty"
        raise ValueError(f"{name} is {came}; one or more of {', '.join(LEVELS)} is needed")

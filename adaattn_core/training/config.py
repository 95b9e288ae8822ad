"""The settings of a training run, and the stage, learning rates and loss weights of each of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

from ..errors import printable
from ..models.config import BASE, COMPACT, VIDEO_LEVELS, ModelConfig
from ..models.encoder import LEVELS

Architecture = Literal["compact", "base", "published"]
Kind = Literal["image", "video"]
Optimizer = Literal["adam", "adamw", "muon"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Stage = Literal["distill", "reconstruct", "style"]

MAX_SEED = 2**32 - 1
"""The generator of torch on the CPU uses 32 bits of a seed."""

T = TypeVar("T")


def option(default: T, help: str) -> T:
    """A dataclass field with a default and the help text that the command line shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one training run, each with its help text in the field's metadata.

    A step is one step of the optimiser. The names are stored in checkpoints and in model files.
    """

    content: str = field(
        metadata={
            "help": "content pictures: a folder, which is searched recursively; a .txt file with one path on each "
            "line; or tar files, such as photos-{000..009}.tar or a folder of them"
        }
    )
    style: str = field(metadata={"help": "style pictures, in the same formats"})
    vgg: str = option("built-in", 'VGG-19 of the losses: "built-in", a weights file, or "torchvision" to download it')
    output: str = field(
        metadata={"help": "run folder; receives model.safetensors, checkpoints/, samples/, losses.csv, losses.svg"}
    )
    steps: int = option(
        50_000,
        "steps of the style stage, which follows the distill and reconstruct stages; the paper trains for about 50,000",
    )
    distill_steps: int = option(1500, "steps of the distill stage; not used with a frozen encoder")
    reconstruct_steps: int = option(1500, "steps of the reconstruct stage")
    batch: int = option(8, "pairs in one step, over all processes")
    accumulate: int = option(
        1, "parts into which each process divides its share of a batch to save memory; the gradients stay the same"
    )
    styles_per_content: int = option(
        1,
        "styles that each content picture is stylised with, taken from the same part of the batch: more results from "
        "the same features",
    )
    crop: int = option(256, "side of the square crops in pixels; at least 32")
    lr: float = option(1e-4, "learning rate of the style stage after warm-up; a cosine lowers it to a hundredth")
    pretrain_lr: float = option(1e-3, "learning rate of the distill and reconstruct stages")
    encoder_lr_scale: float = option(0.25, "factor on the encoder's learning rate in the reconstruct and style stages")
    deep_lr_scale: float = option(
        1.0,
        "factor on the learning rate of the layers that only relu4_1 and relu5_1 pass through; 0 does not train them. "
        "Lower it, for example to 0.05, if the log warns that the decoder no longer sees relu4_1 and relu5_1",
    )
    warmup_steps: int = option(100, "steps over which the learning rate rises from 0 at the start of each stage")
    optimizer: Optimizer = option("adam", "optimiser; the paper uses adam, muon needs fewer steps")
    weight_decay: float = option(0.0, "weight decay, as the optimiser defines it")
    clip_norm: float = option(10.0, "largest norm of the gradient; longer gradients are scaled down to it. 0: no limit")
    ema_decay: float = option(
        0.999,
        "decay of the moving average of the weights, which is what model.safetensors holds; 0: the weights themselves",
    )
    architecture: Architecture = option(
        "compact",
        "shape of the model; compact: small enough for any CPU; base: full size, with narrow queries and keys, bounded "
        "logits and a lean decoder; published: that of the published model",
    )
    kind: Kind = option(
        "image",
        "image: softmax attention at relu3_1, relu4_1 and relu5_1; video: cosine attention at relu3_1, trained on "
        "pairs of frames so that the result does not flicker",
    )
    width: float = option(1.0, "factor on every channel count of the architecture")
    freeze_encoder: bool = option(
        False,
        "use the VGG-19 of the losses as the encoder and do not train it; only for architecture base or published, "
        "width 1",
    )
    init: str = option(
        "",
        "model to start from instead of random weights: a file, or a built-in name. Its architecture is used, and its "
        "encoder too with --freeze-encoder",
    )
    refit_attention: bool = option(False, "with --init: fit queries and keys to the VGG-19 again, as for a new model")
    global_weight: float = option(10.0, "weight of the global style loss")
    relative_style: bool = option(
        False,
        "measure the global style loss as a relative distance, so that all styles count alike; otherwise the paper's "
        "squared distance",
    )
    local_weight: float = option(3.0, "weight of the local feature loss")
    relative_local: bool = option(
        False,
        "measure the local feature loss relative to the mean square of its target, so that all styles and levels count "
        "alike; otherwise the paper's squared distance",
    )
    patch_weight: float = option(
        0.0, "weight of the patch loss: each patch of the result should resemble one of the style, and the reverse"
    )
    content_weight: float = option(0.0, "weight of the content loss, which the paper does not have")
    pixel_weight: float = option(20.0, "weight of the pixel loss of self pairs in the style stage")
    identity_weight: float = option(
        0.0, "weight of the identity loss: a picture stylised with itself should not change"
    )
    color_weight: float = option(
        0.0, "weight of the colour loss: the result should have the colour distribution of the style"
    )
    mesh_weight: float = option(
        0.0, "weight of the checkerboard loss: no row or column of the 4-pixel grid of relu3_1 should have more detail"
    )
    teacher: str = option(
        "",
        "model whose pictures of the same pairs the results should resemble, in pixels and in VGG-19 features, beside "
        "the style losses: a file, or a built-in name such as base",
    )
    teacher_weight: float = option(10.0, "weight of the distance to the teacher's pictures")
    similarity_weight: float = option(
        10.0, "weight of the image similarity loss between two frames, for --kind video; 0 trains on single pictures"
    )
    frame_gap: int = option(
        0,
        "source of the second frame of a pair, for --kind video. 0: the same picture, moved a little; N: one of the N "
        "pictures that follow in the folder, so that each clip needs a folder of its own",
    )
    damage: float = option(
        0.0,
        "share of the content crops of the style stage that get noise or JPEG compression, so that the model learns to "
        "keep flat areas calm",
    )
    self_pairs: float = option(0.2, "share of self pairs in each batch of the style stage, rounded to whole pairs")
    global_levels: tuple[str, ...] = option(LEVELS[1:], "VGG-19 levels of the global style loss")
    local_levels: tuple[str, ...] = option(LEVELS[2:], "VGG-19 levels of the local feature loss")
    content_levels: tuple[str, ...] = option(LEVELS[3:4], "VGG-19 levels of the content loss")
    similarity_levels: tuple[str, ...] = option(LEVELS[1:4], "VGG-19 levels of the image similarity loss")
    local_samples: int = option(
        4096,
        "largest number of random style positions in the target of the local feature loss: an approximation that "
        "saves time, exact for relu3_1 up to 256-pixel crops. 0: all positions",
    )
    vgg_floor: float = option(
        0.2,
        "floor of the normalisation of the VGG-19's channels, as a share of the layer's mean activation; 0 uses the "
        "weights unchanged, which suits only a file that is normalised already. Not used with the built-in VGG-19, "
        "whose channels are normalised",
    )
    seed: int = option(0, "seed of all random numbers; the same seed and settings give the same run")
    device: str = option("auto", "device to train on: auto, cpu, cuda, cuda:1, mps, ...")
    precision: Precision = option(
        "auto",
        "precision of convolutions; auto is bfloat16 where the device computes it natively, otherwise float32. "
        "float16 is for GPUs without bfloat16 (before NVIDIA Ampere): gradients are scaled, and steps whose gradients "
        "overflow are skipped",
    )
    compile: bool = option(
        False,
        "compile encoder, decoder and VGG-19 with torch.compile: minutes at the start, faster steps. Needs a C++ "
        "compiler on a CPU, triton on a GPU",
    )
    workers: int = option(1, "worker processes that read pictures; 0: the training process reads them")
    checkpoint_every: int = option(500, "steps between checkpoints")
    keep_checkpoints: int = option(3, "checkpoints to keep: latest.pt, and the ones before it as step-N.pt")
    sample_every: int = option(500, "steps between pictures in samples/")
    tensorboard: bool = option(
        False, "also write losses, samples and pairs per second for TensorBoard, to tensorboard/ in the run folder"
    )

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, choices in CHOICES:
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"{name} is {getattr(self, name)!r}; known are {known}")
        for name in ("global_levels", "local_levels", "content_levels", "similarity_levels"):
            _check_levels(name, getattr(self, name))
        if self.freeze_encoder and (self.architecture == "compact" or self.width != 1):
            raise ValueError(
                "freeze_encoder needs architecture base or published at width 1: the encoder is the VGG-19 itself"
            )
        if self.teacher and self.kind == "video":
            raise ValueError("a teacher works with kind image only; leave it out, or set kind to image")
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
            **dict.fromkeys(
                ("global_weight", "local_weight", "content_weight", "pixel_weight", "self_pairs", "damage"), 0
            ),
            **dict.fromkeys(("patch_weight", "identity_weight", "color_weight", "mesh_weight", "similarity_weight"), 0),
            **dict.fromkeys(("local_samples", "vgg_floor", "seed", "teacher_weight", "frame_gap"), 0),
            "crop": 32,
        }
        for name, minimum in minima.items():
            if not getattr(self, name) >= minimum:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {minimum}")
        for name in (*minima, "width"):
            if getattr(self, name) == math.inf:
                raise ValueError(f"{name} is inf; a finite number is needed")
        for name, maximum in (("self_pairs", 1), ("damage", 1), ("ema_decay", 1), ("seed", MAX_SEED)):
            if getattr(self, name) > maximum:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {maximum}")
        if not self.width > 0:
            raise ValueError(f"width is {self.width}; it must be above 0")

    @property
    def stage_ends(self) -> dict[Stage, int]:
        """The step after the last one of each stage, in order."""
        distill = 0 if self.freeze_encoder else self.distill_steps
        return {
            "distill": distill,
            "reconstruct": distill + self.reconstruct_steps,
            "style": distill + self.reconstruct_steps + self.steps,
        }

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.stage_ends["style"]

    @property
    def uses_frame_pairs(self) -> bool:
        """Whether the style stage stylises two frames of each content."""
        return self.kind == "video" and self.similarity_weight > 0

    @property
    def n_self_pairs(self) -> int:
        """Number of self pairs in each batch of the style stage."""
        return round(self.self_pairs * self.batch)

    def check_divisible(self, processes: int) -> None:
        """Check that the batch divides into equal parts.

        Raises:
            ValueError: it does not.
        """
        parts = processes * self.accumulate
        if self.batch % parts:
            nearest = sorted({max(1, self.batch // parts) * parts, (self.batch // parts + 1) * parts})
            raise ValueError(
                f"batch is {self.batch}; it must be a multiple of {parts} ({processes} processes, each with "
                f"{self.accumulate} parts one after another). Use --batch {' or '.join(map(str, nearest))}."
            )

    def stage(self, step: int) -> tuple[Stage, int, int]:
        """Name of the stage that a step belongs to, the step's number within it, and the stage's length."""
        start = 0
        for name, end in self.stage_ends.items():
            if step < end:
                return name, step - start, end - start
            start = end
        raise ValueError(f"step {step} is past the end of the run")

    def weight(self, loss: str, stage: Stage) -> float:
        """Weight of a loss in the total of a stage."""
        return float(getattr(self, f"{loss}_weight")) if stage == "style" else 1.0

    def learning_rates(self, step: int) -> tuple[float, float]:
        """Learning rates of a step: the encoder's and that of all other parameters, before `deep_lr_scale`."""
        stage, position, length = self.stage(step)
        warmup = min(1.0, (position + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if stage == "distill":
            return self.pretrain_lr * warmup, self.pretrain_lr * warmup
        cosine = 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * position / length))
        rate = warmup * (self.lr * cosine if stage == "style" else self.pretrain_lr)
        return rate * self.encoder_lr_scale, rate

    def ema_decay_at(self, step: int) -> float:
        """Decay of the weight average at a step: 0 before the style stage, then rising to `ema_decay`."""
        stage, position, _ = self.stage(step)
        return min(self.ema_decay, (1 + position) / (10 + position)) if stage == "style" else 0.0

    def model_config(self) -> ModelConfig:
        """The configuration of a new model."""
        base = {"compact": COMPACT, "base": BASE, "published": ModelConfig()}[self.architecture]
        scaled = replace(base, channels=tuple(max(8, 8 * round(c * self.width / 8)) for c in base.channels))
        if self.kind == "image":
            return scaled
        projections, cells = (numbers and numbers[:1] for numbers in (scaled.projection_channels, scaled.style_cells))
        return replace(
            scaled,
            levels=VIDEO_LEVELS,
            similarity="cosine",
            projection_channels=projections,
            style_cells=cells,
            logit_scale=None,
        )


CHOICES = (("architecture", Architecture), ("kind", Kind), ("optimizer", Optimizer), ("precision", Precision))
"""Settings with a fixed set of values."""


def _check_levels(name: str, levels: Sequence[str]) -> None:
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels:
        given = printable(", ".join(map(repr, unknown)), 300) or "empty"
        raise ValueError(f"{name} is {given}; one or more of {', '.join(LEVELS)} is needed")

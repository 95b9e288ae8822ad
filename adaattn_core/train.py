"""Training: folders of pictures in, one weights file out.

Three stages, of which a model with a frozen full-size encoder needs only the last:

1. distill: the encoder learns to predict normalised VGG-19 features through throw-away 1x1 convolutions;
2. reconstruct: self pairs (data.TrainingPairs), pixel loss: palette and texture have to come through the attention;
3. style: the losses of the paper, with some self pairs kept in.

Each step draws from generators seeded by (seed, step), so a resumed run equals an uninterrupted one, bit for bit on
the CPU.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from .checkpoint import CheckpointError, load_model, save_model
from .data import DataError, Sample, TrainingPairs
from .encoder import LEVELS, Features, VGGEncoder
from .images import atomic_path
from .losses import content_loss, global_style_loss, local_feature_loss, normalize_activations
from .model import COMPACT, ModelConfig, StyleTransferModel
from .published import load_vgg

Architecture = Literal["compact", "base"]
Optimizer = Literal["adam", "adamw"]
Precision = Literal["auto", "float32", "bfloat16"]
Stage = Literal["distill", "reconstruct", "style"]

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; one line: the step, the cause, what to do."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Steps count optimiser steps; crops are squares in pixels."""

    content: str
    """Folder of content pictures, searched recursively."""
    style: str
    """Folder of style pictures."""
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
    crop: int = 256
    lr: float = 1e-4
    """Learning rate of the style stage, after warm-up; a cosine takes it to a hundredth."""
    pretrain_lr: float = 1e-3
    """Learning rate of the first two stages."""
    encoder_lr_scale: float = 0.25
    """Encoder's share of the learning rate in the style stage."""
    warmup_steps: int = 100
    """Steps over which each stage's learning rate rises from 0."""
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    clip_norm: float = 10.0
    """Gradients longer than this are shortened to it; 0 leaves them."""
    ema_decay: float = 0.999
    """Moving average of the weights, which is what model.safetensors holds; 0 keeps the weights themselves."""
    architecture: Architecture = "compact"
    width: float = 1.0
    """Factor on every channel count of the architecture."""
    freeze_encoder: bool = False
    """Use the VGG-19 of the losses as the encoder and leave it as it is ("base" at width 1 only)."""
    init: str = ""
    """Weights file to start from, instead of at random; its architecture is taken over."""
    global_weight: float = 10.0
    local_weight: float = 3.0
    content_weight: float = 0.0
    pixel_weight: float = 20.0
    """Weight of the pixel loss on self pairs, in the style stage."""
    self_pairs: float = 0.2
    """Share of self pairs kept in the style stage."""
    global_levels: tuple[str, ...] = LEVELS[1:]
    local_levels: tuple[str, ...] = LEVELS[2:]
    content_levels: tuple[str, ...] = LEVELS[3:4]
    local_samples: int = 4096
    """The local target looks at no more than that many random style positions (exact up to 256-pixel crops on
    relu3_1): an approximation, for speed; 0 looks at all."""
    vgg_floor: float = 0.2
    """Floor of the per-channel normalisation of the VGG-19 (losses.normalize_activations); 0 takes its weights as
    they are, which only suits an already normalised file."""
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    """Of convolutions; auto is bfloat16 where the device computes it natively."""
    workers: int = 1
    checkpoint_every: int = 500
    sample_every: int = 500

    def __post_init__(self) -> None:
        for name in ("batch", "crop", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("steps", "distill_steps", "reconstruct_steps", "lr", "workers", "self_pairs", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.crop < 32:
            raise ValueError(f"crop is {self.crop} pixels; at least 32 are needed")
        if self.freeze_encoder and (self.architecture, self.width) != ("base", 1.0):
            raise ValueError("freeze_encoder needs architecture base at width 1: the encoder is the VGG-19 itself")

    @property
    def stage_ends(self) -> dict[Stage, int]:
        """First step after each stage, in order."""
        distill = 0 if self.freeze_encoder else self.distill_steps
        return {
            "distill": distill,
            "reconstruct": distill + self.reconstruct_steps,
            "style": distill + self.reconstruct_steps + self.steps,
        }

    def stage(self, step: int) -> tuple[Stage, int, int]:
        """Name, step within the stage, and length of the stage that a step belongs to."""
        start = 0
        for name, end in self.stage_ends.items():
            if step < end:
                return name, step - start, end - start
            start = end
        raise ValueError(f"step {step} is past the end of the run")

    def model_config(self) -> ModelConfig:
        """Shapes of the model to train."""
        base = {"compact": COMPACT, "base": ModelConfig()}[self.architecture]
        return replace(base, channels=tuple(max(8, 8 * round(c * self.width / 8)) for c in base.channels))


class Run:
    """Everything that changes while training."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.folder = Path(config.output)
        self.device = torch.device(pick_device(config.device))
        self.autocast_dtype = pick_training_dtype(config.precision, self.device)
        self.total = config.stage_ends["style"]
        self.self_items = round(config.self_pairs * config.batch)
        self.pairs = TrainingPairs(
            config.content, config.style, crop=config.crop, seed=config.seed, length=self.total * config.batch,
            batch=config.batch, self_items=self.self_items,
            self_only_until=config.stage_ends["reconstruct"] * config.batch,
        )
        self.vgg = self._loss_network()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = load_model(config.init).requires_grad_(True) if config.init else self._new_model()
            self.adapters = nn.ModuleList(
                nn.Conv2d(a, b, kernel_size=1)
                for a, b in zip(self.model.encoder.channels, self.vgg.channels, strict=True)
            )
        self.model.encoder.requires_grad_(not config.freeze_encoder)
        for module in (self.model, self.adapters):
            module.train().to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = self._new_optimizer()
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        self.skipped: list[str] = []

    def _loss_network(self) -> VGGEncoder:
        vgg = load_vgg(self.config.vgg)
        if self.config.vgg_floor:
            calibration = [self.pairs[index] for index in range(min(32, len(self.pairs)))]
            normalize_activations(vgg, torch.stack([sample.target for sample in calibration]), self.config.vgg_floor)
        vgg = vgg.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return vgg.eval().requires_grad_(False)

    def _new_model(self) -> StyleTransferModel:
        model = StyleTransferModel(self.config.model_config())
        model.fusion.initialize()
        if self.config.freeze_encoder:
            model.encoder.load_state_dict(self.vgg.state_dict())
        return model

    def _new_optimizer(self) -> torch.optim.Optimizer:
        rest = [*self.model.fusion.parameters(), *self.model.decoder.parameters(), *self.adapters.parameters()]
        groups: list[dict[str, Any]] = [{"params": rest}]
        if not self.config.freeze_encoder:
            groups.append({"params": list(self.model.encoder.parameters())})
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.config.optimizer]
        return kind(groups, lr=self.config.lr, weight_decay=self.config.weight_decay)

    # one step

    def train_step(self, batch: Sample) -> dict[str, float]:
        """One optimiser step; the losses by name.

        Raises:
            TrainingError: a loss or gradient is not finite; nothing was changed then.
        """
        stage, position, length = self.config.stage(self.step)
        if position == 0:
            self.optimizer = self._new_optimizer()  # the moments of another stage's gradients would mislead this one
        self._set_learning_rate(stage, position, length)
        content, style, target = (
            x.to(self.device, memory_format=torch.channels_last, non_blocking=True) for x in batch[:3]
        )
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            if stage == "distill":
                losses = {"distill": self._distill_loss(torch.cat([content, style]))}
            elif stage == "reconstruct":
                losses = {"pixel": F.l1_loss(self.model(content, style).float(), target)}
            else:
                losses = self._style_losses(content, style, target)
        weights = {"global": self.config.global_weight, "local": self.config.local_weight,
                   "content": self.config.content_weight,
                   "pixel": self.config.pixel_weight if stage == "style" else 1.0}
        total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        for name, loss in losses.items():
            self._check_finite(f"the {name} loss", loss)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf)
        self._check_finite("the gradient", norm)
        self.optimizer.step()
        self._update_ema(stage, position)
        self.step += 1
        return {"total": float(total.detach()), **{name: float(loss.detach()) for name, loss in losses.items()},
                "gradient_norm": float(norm)}

    def _distill_loss(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.vgg(images)
        found = self.model.encoder(images)
        return torch.stack([
            F.mse_loss(adapter(found[level]).float(), wanted[level].float())
            for adapter, level in zip(self.adapters, LEVELS, strict=True)
        ]).sum()

    def _style_losses(self, content: Tensor, style: Tensor, target: Tensor) -> dict[str, Tensor]:
        picture = self.model(content, style).float()
        own = self.self_items
        losses = {"pixel": F.l1_loss(picture[:own], target[:own])} if own else {}
        if own == len(picture):
            return losses
        deepest = max(*self.config.global_levels, *self.config.local_levels, *self.config.content_levels)
        with torch.no_grad():
            wanted = self.vgg(torch.cat([content[own:], style[own:]]), deepest)
        content_features: Features = {level: x.chunk(2)[0] for level, x in wanted.items()}
        style_features: Features = {level: x.chunk(2)[1] for level, x in wanted.items()}
        found = self.vgg(picture[own:], deepest)
        config = self.config
        generator = torch.Generator().manual_seed((config.seed << 40) + self.step)
        losses["global"] = global_style_loss(found, style_features, config.global_levels)
        losses["local"] = local_feature_loss(
            found, content_features, style_features, config.local_levels, config.local_samples or None, generator
        )
        if config.content_weight:
            losses["content"] = content_loss(found, content_features, config.content_levels)
        return losses

    def _set_learning_rate(self, stage: Stage, position: int, length: int) -> None:
        config = self.config
        warm = min(1.0, (position + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if stage == "style":
            lr = config.lr * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * position / length)))
        else:
            lr = config.pretrain_lr * warm
        scales = (1.0, config.encoder_lr_scale if stage == "style" else 1.0)
        for group, scale in zip(self.optimizer.param_groups, scales, strict=False):
            group["lr"] = lr * scale

    def _update_ema(self, stage: Stage, position: int) -> None:
        decay = min(self.config.ema_decay, (1 + position) / (10 + position)) if stage == "style" else 0.0
        values = self.model.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [values[name] for name in self.ema], 1 - decay)

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not bool(torch.isfinite(value).all()):
            raise TrainingError(
                f"step {self.step}: {what} became {float(value):g}. The checkpoint of the last save is intact; "
                f"go on from it with a lower learning rate (now {self.config.lr:g}) or --precision float32."
            )

    # what stays on disk

    def averaged_model(self) -> StyleTransferModel:
        """A copy with the averaged weights, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            model = StyleTransferModel(self.model.config)
        model.load_state_dict(self.ema)
        return model.to(self.device).eval().requires_grad_(False)

    def save(self) -> None:
        """Checkpoint and model file, each whole or not at all."""
        state = {
            "step": self.step,
            "config": json.dumps(asdict(self.config)),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "adapters": self.adapters.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "skipped": self.skipped,
        }
        with atomic_path(self.folder / "checkpoints" / "latest.pt") as temporary:
            torch.save(state, temporary)
        record = {"steps": self.step, "settings": asdict(self.config)}
        save_model(self.averaged_model(), self.folder / "model.safetensors", metadata={"trained_on": json.dumps(record)})

    def restore(self) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            CheckpointError: there is none, or it belongs to other settings.
        """
        path = self.folder / "checkpoints" / "latest.pt"
        if not path.is_file():
            raise CheckpointError(f"{path}: no checkpoint to resume from. Start without --resume.")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._check_same_settings(json.loads(state["config"]))
        self.model.load_state_dict(state["model"])
        self.adapters.load_state_dict(state["adapters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {name: value.to(self.device) for name, value in state["ema"].items()}
        self.step, self.skipped = state["step"], state["skipped"]

    def _check_same_settings(self, saved: dict[str, Any]) -> None:
        free = {"output", "content", "style", "vgg", "device", "workers", "checkpoint_every", "sample_every", "init"}
        now = json.loads(json.dumps(asdict(self.config)))
        changed = [f"{name} {saved.get(name)} -> {now[name]}" for name in now if name not in free and saved.get(name) != now[name]]
        if changed:
            raise CheckpointError(
                f"the run in {self.folder} was started with other settings ({'; '.join(changed)}). "
                "Resume with the same, or start a new run from its weights with --init."
            )


def pick_device(name: str) -> str:
    """ "auto" -> "cuda", "mps" or "cpu", whichever is there first."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_training_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """dtype for autocast, or None for float32 throughout."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; known are {', '.join(get_args(Precision))}")
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return torch.bfloat16 if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None


def batches(run: Run) -> Iterator[Sample]:
    """Batches from the run's current step to its end."""
    batch, workers = run.config.batch, run.config.workers
    loader = DataLoader(
        run.pairs, batch_size=batch, sampler=range(run.step * batch, len(run.pairs)), num_workers=workers,
        generator=torch.Generator(), persistent_workers=workers > 0, prefetch_factor=4 if workers else None,
    )
    yield from loader


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train, or go on training; returns the path of the model file.

    Raises:
        DataError, CheckpointError, TrainingError, ValueError: each with one clear line.
    """
    run = Run(config)
    for part in ("checkpoints", "samples"):
        (run.folder / part).mkdir(parents=True, exist_ok=True)
    if resume:
        run.restore()
    elif (run.folder / "checkpoints" / "latest.pt").exists():
        raise DataError(f"{run.folder} already holds a run. Add --resume to go on, or choose another --output.")
    from .trainlog import TrainLog

    with TrainLog(run.folder, run.step) as record, tqdm(total=run.total, initial=run.step, disable=not progress) as bar:
        try:
            for batch in batches(run):
                _note_broken(run, batch)
                stage = config.stage(run.step)[0]
                losses = run.train_step(batch)
                record.add(run.step, stage, losses)
                bar.update()
                bar.set_postfix_str(f"{stage} loss {losses['total']:.4f}", refresh=False)
                if run.step % config.sample_every == 0 or run.step == run.total:
                    record.sample(run.averaged_model(), run.pairs, run.step)
                if run.step % config.checkpoint_every == 0 or run.step == run.total:
                    run.save()
        except KeyboardInterrupt:
            run.save()
            raise
    return run.folder / "model.safetensors"


def _note_broken(run: Run, batch: Sample) -> None:
    for name in {name for names in batch.broken for name in names.split("\n") if name} - set(run.skipped):
        run.skipped.append(name)
        log.warning("skipped %s: not a readable picture (%d so far)", name, len(run.skipped))

"""Training: folders of pictures in, one weights file out.

Three stages, of which a model with a frozen full-size encoder needs only the last:

1. distill: the encoder, fitted to the VGG-19 by linear algebra (distill.py), learns to predict its features better,
   through throw-away 1x1 convolutions;
2. reconstruct: self pairs (data.TrainingPairs), pixel loss: palette and texture have to come through the attention;
3. style: the losses of the paper, with some self pairs kept in.

Each step draws from generators seeded by (seed, step), so a resumed run equals an uninterrupted one, bit for bit on
the CPU.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, autocast, nn
from torch.nn import Conv2d

from .checkpoint import CheckpointError, empty_model, load_model, ready, save_model
from .data import Batch, DataError, TrainingPairs, WorkerError, batches, partners
from .devices import pick_device, pick_dtype
from .distill import fit_attention, fit_encoder, fit_merge
from .encoder import VGGEncoder
from .losses import normalize_activations
from .model import StyleTransferModel
from .muon import Muon
from .progress import progress_bar
from .published import load_vgg
from .stopping import StopSignals, orphaned
from .train_config import Stage, TrainConfig
from .train_losses import distill_loss, style_losses
from .train_state import CHECKPOINT as CHECKPOINT
from .train_state import MODEL, check_same_settings, public_settings, read_checkpoint, write_checkpoint
from .trainlog import TrainLog

FIT_CROPS = 160
"""Crops of 128 pixels that a new encoder is fitted on; fewer where they are larger, for the memory they take."""
CALIBRATION_PICTURES = 32
log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; one line: the step, the cause, what to do."""


class Run:
    """Everything that changes while training."""

    def __init__(self, config: TrainConfig, signals: StopSignals | None = None) -> None:
        self.config = config
        self.signals = signals or StopSignals()
        self.folder = Path(config.output)
        self.device = pick_device(config.device)
        dtype = pick_dtype(config.precision, self.device)
        self.autocast_dtype = None if dtype == torch.float32 else dtype
        self.total = config.stage_ends["style"]
        self.pairs = TrainingPairs(
            config.content,
            config.style,
            crop=config.crop,
            seed=config.seed,
            length=self.total * config.batch,
            batch=config.batch,
            self_items=config.self_items,
            self_only_until=config.stage_ends["reconstruct"] * config.batch,
        )
        self.vgg = self._loss_network()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would reach the GPU's generators too
            self.model = self._first_model()
            self.adapters = nn.ModuleList(
                Conv2d(a, b, kernel_size=1) for a, b in zip(self.model.encoder.channels, self.vgg.channels, strict=True)
            )
        self.model.encoder.requires_grad_(not config.freeze_encoder)
        for module in (self.model, self.adapters):
            module.train().to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = self._new_optimizer()
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        self.saved_step: int | None = None
        self.is_torn = False
        self.skipped: list[str] = []

    def _loss_network(self) -> VGGEncoder:
        vgg = load_vgg(self.config.vgg).eval().requires_grad_(False)
        vgg.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.vgg_floor:
            calibration = [self.pairs[index].target for index in range(min(CALIBRATION_PICTURES, len(self.pairs)))]
            normalize_activations(vgg, torch.stack(calibration).to(self.device), self.config.vgg_floor)
        return vgg

    def _first_model(self) -> StyleTransferModel:
        if self.config.init:
            return load_model(self.config.init).requires_grad_(True)
        model = StyleTransferModel(self.config.model_config())
        model.fusion.initialize()
        model.decoder.initialize()
        if self.config.freeze_encoder:
            model.encoder.load_state_dict(self.vgg.state_dict())
        return model

    def fit_encoder(self) -> None:
        """Where a new run's trained encoder starts: as close to the VGG-19 as linear algebra takes it."""
        if self.config.freeze_encoder or self.config.init:
            return
        sizes = ((*encoder.channels, *encoder.convs) for encoder in (self.model.encoder, self.vgg))
        if any(own > wanted for own, wanted in zip(*sizes, strict=True)):
            log.warning("the encoder is larger than the VGG-19; it starts from random weights")
            return
        images = self._fit_images()
        with torch.random.fork_rng(devices=[]):
            adapters = fit_encoder(self.model.encoder, self.vgg, images)
        self.adapters.load_state_dict(adapters.state_dict())
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def fit_attention(self) -> None:
        """Where queries and keys start: looking where the local loss's target looks, as far as linear algebra takes
        them. With `init` only if `refit_attention` says so."""
        if self.config.init and not self.config.refit_attention:
            return
        images = self._fit_images()
        fit_attention(self.model.fusion, self.model.encoder, self.vgg, images)
        if not self.config.init:
            fit_merge(self.model.fusion, self.model.encoder, images)
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _fit_images(self) -> Tensor:
        count = max(8, min(FIT_CROPS, FIT_CROPS * 128**2 // self.config.crop**2))
        return torch.stack([self.pairs[index].target for index in range(count)]).to(self.device)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        rest = [*self.model.fusion.parameters(), *self.model.decoder.parameters(), *self.adapters.parameters()]
        groups: list[dict[str, Any]] = [{"params": rest}]
        if not self.config.freeze_encoder:
            groups.append({"params": list(self.model.encoder.parameters())})
        kinds: dict[str, type[torch.optim.Adam | Muon]] = {
            "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon,
        }  # fmt: skip
        return kinds[self.config.optimizer](groups, lr=self.config.lr, weight_decay=self.config.weight_decay)

    # one step

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; the losses by name, their weighted total, and the length of the gradient.

        Raises:
            TrainingError: a loss or gradient is not finite; no weight was changed then.
        """
        stage, position, _ = self.config.stage(self.step)
        if position == 0:
            self.optimizer = self._new_optimizer()  # the moments of another stage's gradients would mislead this one
        self._set_learning_rates()
        losses = self._losses(stage, batch)
        total = torch.stack([self._weight(name, stage) * loss for name, loss in losses.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf)
        numbers = torch.stack([*losses.values(), total, norm]).tolist()  # the one wait for the device in a step
        record = dict(zip((*losses, "total", "gradient_norm"), numbers, strict=True))
        for name, value in record.items():
            if not math.isfinite(value):
                raise self._failure("the gradient" if name == "gradient_norm" else f"the {name} loss", value)
        self.signals.hold()  # till the step has its row in the log
        self.is_torn = True
        self.optimizer.step()
        self._update_ema()
        self.step += 1
        self.is_torn = False
        return record

    def _weight(self, loss: str, stage: Stage) -> float:
        if stage != "style":
            return 1.0
        weight: float = getattr(self.config, f"{loss}_weight")
        return weight

    def _losses(self, stage: Stage, batch: Batch) -> dict[str, Tensor]:
        content, style, target = (x.to(self.device, memory_format=torch.channels_last) for x in batch[:3])
        with autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            if stage == "distill":
                return {
                    "distill": distill_loss(self.model.encoder, self.adapters, self.vgg, torch.cat([content, style]))
                }
            if stage == "reconstruct":
                return {"pixel": F.l1_loss(self.model(content, style).float(), target)}
            own = self.config.self_items
            contents, styles = partners(len(content), own, self.config.styles_per_content)
            picture = self.model.paint_pairs(content, style, contents, styles).float()
            losses = {"pixel": F.l1_loss(picture[:own], target[:own])} if own else {}
            if own < len(picture):
                losses |= style_losses(
                    self.vgg, self.config, self.step, content, style, picture[own:], contents[own:], styles[own:]
                )
            return losses

    def _set_learning_rates(self) -> None:
        encoder, rest = self.config.learning_rates(self.step)
        for group, lr in zip(self.optimizer.param_groups, (rest, encoder), strict=False):
            group["lr"] = lr

    def _update_ema(self) -> None:
        values = self.model.state_dict()
        moved = 1 - self.config.averaging(self.step)
        torch._foreach_lerp_(list(self.ema.values()), [values[name] for name in self.ema], moved)

    def _failure(self, what: str, value: float) -> TrainingError:
        stage = self.config.stage(min(self.step, self.total - 1))[0]
        lr = self.config.lr if stage == "style" else self.config.pretrain_lr
        advice = "Nothing is saved yet: start again"
        if self.saved_step is not None:
            advice = (
                f"The save of step {self.saved_step} is intact: start a new run from it (--init {self.folder / MODEL})"
            )
        return TrainingError(
            f"step {self.step}: {what} became {value:g}. {advice} with a lower learning rate ({stage}: {lr:g}) "
            "or --precision float32."
        )

    # what stays on disk

    def averaged_model(self) -> StyleTransferModel:
        """A copy with the averaged weights, ready to stylise."""
        model = empty_model(self.model.config)
        model.load_state_dict({name: value.clone() for name, value in self.ema.items()}, assign=True)
        return ready(model, self.device)

    def save(self) -> None:
        """Model file and checkpoint, each whole or not at all.

        Raises:
            TrainingError: a weight is not finite; what was saved before stays as it is.
        """
        for name, value in (*self.model.state_dict().items(), *self.ema.items()):
            if not bool(value.half().isfinite().all()):  # the model file is float16
                raise self._failure(f"weight {name}", float(value.abs().max()))
        about = {"trained_on": json.dumps({"steps": self.step, "settings": public_settings(self.config)})}
        save_model(self.averaged_model(), self.folder / MODEL, metadata=about)
        state = {
            "step": self.step,
            "config": json.dumps(asdict(self.config)),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "adapters": self.adapters.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "skipped": self.skipped,
        }
        write_checkpoint(self.folder / CHECKPOINT, state, self.saved_step, self.config.keep_checkpoints)
        self.saved_step = self.step

    def save_last(self) -> None:
        """Save, unless an update was cut short: some weights have made the step then and some have not."""
        if not self.is_torn:
            self.signals.hold()
            with orphaned():
                self.save()

    def restore(self) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            CheckpointError: it is damaged, or belongs to other settings or another model.
        """
        path = self.folder / CHECKPOINT
        state = read_checkpoint(path)
        check_same_settings(self.config, state["config"])
        try:
            self.model.load_state_dict(state["model"])
            self.adapters.load_state_dict(state["adapters"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema = {name: state["ema"][name].to(self.device) for name in self.ema}
        except (RuntimeError, ValueError, KeyError) as error:  # torch's texts: a heading, then a line for each tensor
            cause = str(error).splitlines()[1 if "\n" in str(error) else 0].strip().rstrip(".")
            raise CheckpointError(
                f"{path} does not fit the model of these settings: {cause}. Resume with the --init of its first start."
            ) from error
        self.step, self.skipped = state["step"], state["skipped"]
        self.saved_step = self.step


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train, or go on training; returns the path of the model file.

    Raises:
        ImageError, DataError, CheckpointError, TrainingError, ValueError: each with one clear line.
    """
    folder = Path(config.output)
    has_checkpoint = (folder / CHECKPOINT).is_file()
    if resume and not has_checkpoint:
        raise CheckpointError(f"{folder / CHECKPOINT}: no checkpoint to resume from. Start without --resume.")
    if has_checkpoint and not resume:
        raise DataError(f"{folder} already holds a run. Add --resume to go on, or choose another --output.")
    with StopSignals() as signals:
        run = Run(config, signals)
        if resume:
            run.restore()
        else:
            run.fit_encoder()
            run.fit_attention()
        if run.step == run.total:
            log.warning("the run in %s is finished: all %d steps are done, nothing is left to do", folder, run.total)
            return folder / MODEL
        for part in ("checkpoints", "samples"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        _train_on(run, progress)
    return folder / MODEL


def _train_on(run: Run, progress: bool) -> None:
    """The steps that are left; what is done is saved when something from outside ends them early."""
    try:
        _steps(run, progress)
    except KeyboardInterrupt:
        run.save_last()
        raise
    except WorkerError as error:
        run.save_last()
        raise TrainingError(
            f"step {run.step}: {error}, as happens when memory runs out. Go on with --resume, and fewer --workers "
            f"(now {run.config.workers}) if it comes again."
        ) from error
    except torch.cuda.OutOfMemoryError as error:
        size = f"--batch (now {run.config.batch}) or --crop (now {run.config.crop})"
        raise TrainingError(f"step {run.step}: {run.device} has no memory left. Make {size} smaller.") from error


def _steps(run: Run, progress: bool) -> None:
    config = run.config
    bar = progress_bar(run.total, run.step, enabled=None if progress else False)
    with TrainLog(run.folder, run.step) as record, bar:
        for batch in batches(run.pairs, run.step, config.workers):
            _note_broken(run, batch)
            stage = config.stage(run.step)[0]
            losses = run.train_step(batch)
            record.add(run.step, stage, losses)
            run.signals.release()
            bar.set_postfix_str(f"{stage} loss {losses['total']:.4f}", False)
            bar.update()
            if run.step % config.sample_every == 0 or run.step == run.total:
                record.sample(run.averaged_model(), run.pairs, run.step)
            if run.step % config.checkpoint_every == 0 or run.step == run.total:
                run.save()


def _note_broken(run: Run, batch: Batch) -> None:
    for name in batch.broken:
        if name not in run.skipped:
            run.skipped.append(name)
            log.warning("skipped %s: not a readable picture (%d so far)", name, len(run.skipped))


if __name__ == "__main__":
    from .cli import main  # imported here, as the command line imports this module

    sys.exit(main(["train", *sys.argv[1:]]))

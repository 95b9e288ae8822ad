"""A training run: all that changes while training, one step of it, and what of it stays on disk."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, autocast, nn
from torch.nn import Conv2d

from ..checkpoints.model_file import build_on_meta, fingerprint, load_model, prepare_for_inference, save_model
from ..checkpoints.vgg import load_vgg
from ..errors import CheckpointError, TrainingError
from ..models.config import VIDEO_LEVELS
from ..models.encoder import VGGEncoder
from ..models.model import StyleTransferModel
from ..runtime.device import training_dtype
from ..runtime.distributed import DistributedContext
from ..runtime.signals import GracefulShutdown, ignore_sigchld
from .config import Stage, TrainConfig
from .dataset import Batch, DataError, TrainingPairs
from .initialization import fit_attention, fit_encoder, fit_merge
from .losses import normalize_activations
from .muon import Muon
from .objective import loss_names, part_losses, part_of_batch
from .run_checkpoint import (
    CHECKPOINT,
    MODEL,
    check_same_data,
    check_same_settings,
    public_settings,
    read_checkpoint,
    write_checkpoint,
)

FIT_CROPS = 160
"""Crops of 128 pixels that a new encoder is fitted on; fewer where they are larger, for the memory they take."""
CALIBRATION_PICTURES = 32
FIRST_LOSS_SCALE = 2.0**16
LOSS_SCALE_STEPS = 1000
"""Of float16, whose small gradients would be 0 without: halved whenever gradients overflow, doubled after so many
steps. Differs from torch.amp.GradScaler: by the number of the step, so that there is no counter to save."""
log = logging.getLogger(__name__)


class Trainer:
    """Everything that changes while training."""

    def __init__(
        self, config: TrainConfig, signals: GracefulShutdown | None = None, ranks: DistributedContext | None = None
    ) -> None:
        self.config = config
        self.signals = signals or GracefulShutdown()
        self.ranks = ranks or DistributedContext()
        self.folder = Path(config.output)
        config.check_divisible(self.ranks.world)
        self.device = self.ranks.pick_device(config.device)
        dtype = training_dtype(config.precision, self.device)
        self.autocast_dtype = None if dtype == torch.float32 else dtype
        self.loss_scale = FIRST_LOSS_SCALE if dtype == torch.float16 else 1.0
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
            frame_gap=config.frame_gap if config.paints_frames else None,
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
        self.update_in_progress = False
        self.skipped: list[str] = []

    def _loss_network(self) -> VGGEncoder:
        with self.ranks.local_main_first():  # where it is downloaded, once for each machine
            vgg = load_vgg(self.config.vgg).eval().requires_grad_(False)
        self.vgg_fingerprint = fingerprint(vgg)
        vgg.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.vgg_floor:
            calibration = [self.pairs[index].target for index in range(min(CALIBRATION_PICTURES, len(self.pairs)))]
            normalize_activations(vgg, torch.stack(calibration).to(self.device), self.config.vgg_floor)
        return vgg

    def _first_model(self) -> StyleTransferModel:
        if self.config.init:
            model = load_model(self.config.init).requires_grad_(True)
            kind = "video" if model.config.levels == VIDEO_LEVELS else "image"
            if kind != self.config.kind:
                raise CheckpointError(
                    f"{self.config.init} is for {kind}, this run for {self.config.kind}. Use --kind {kind}."
                )
            return model
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
        images = self.calibration_crops()
        with torch.random.fork_rng(devices=[]):
            adapters = fit_encoder(self.model.encoder, self.vgg, images)
        self.adapters.load_state_dict(adapters.state_dict())
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def fit_attention(self) -> None:
        """Where queries and keys start: looking where the local loss's target looks, as far as linear algebra takes
        them. With `init` only if `refit_attention` says so."""
        if self.config.init and not self.config.refit_attention:
            return
        images = self.calibration_crops()
        fit_attention(self.model.fusion, self.model.encoder, self.vgg, images)
        if not self.config.init:
            fit_merge(self.model.fusion, self.model.encoder, images)
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def calibration_crops(self) -> Tensor:
        count = max(8, min(FIT_CROPS, FIT_CROPS * 128**2 // self.config.crop**2))
        crops = torch.stack([self.pairs[index].target for index in range(count)]).to(self.device)
        if torch.equal(crops.amax((2, 3)), crops.amin((2, 3))):
            raise DataError(
                f"the pictures of {self.config.content} are of one colour each, and nothing can be learnt from them. "
                "Check the training folders."
            )
        return crops

    def _new_optimizer(self) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": group} for group, _ in self._parameter_groups()]
        kinds: dict[str, type[torch.optim.Adam | Muon]] = {
            "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon,
        }  # fmt: skip
        return kinds[self.config.optimizer](groups, lr=self.config.lr, weight_decay=self.config.weight_decay)

    def _parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters to train, and the share of the learning rate that each group takes besides the encoder's."""
        config, model = self.config, self.model
        rest = [*model.fusion.parameters(), *model.decoder.parameters(), *self.adapters.parameters()]
        groups = [rest] if config.freeze_encoder else [rest, list(model.encoder.parameters())]
        if config.deep_lr_scale == 1:
            return [(group, 1.0) for group in groups]
        deep = {id(parameter) for part in model.deep_modules for parameter in part.parameters()}
        split = [[p for p in group if (id(p) in deep) is below] for below in (False, True) for group in groups]
        shares = [1.0] * len(groups) + [config.deep_lr_scale] * len(groups)
        return list(zip(split, shares, strict=True))

    def compile(self) -> None:
        """Have torch compile, on their first use, what takes the time; weights keep their names."""
        for module in (self.model.encoder, self.model.decoder, self.vgg):
            module.compile()

    # one step

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; the losses by name, their weighted total, and the length of the gradient.

        Args:
            batch: this process's share.

        Raises:
            TrainingError: a loss or gradient is not finite; no weight was changed then.
            PeerError, KeyboardInterrupt: another process cannot go on, or is asked to stop; no weight was changed.
        """
        stage, position, _ = self.config.stage(self.step)
        if position == 0:
            self.optimizer = self._new_optimizer()  # the moments of another stage's gradients would mislead this one
        self._set_learning_rates()
        losses = self._find_gradients(stage, batch)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf)
        numbers = torch.stack([*losses.values(), norm]).tolist()  # the one wait for the device in a step
        record = dict(zip((*losses, "gradient_norm"), numbers, strict=True))
        overflowed = self.loss_scale > 1 and not math.isfinite(record["gradient_norm"])
        if overflowed:
            record["gradient_norm"] = 0.0
        for name, value in record.items():
            if not math.isfinite(value):
                raise self._failure("the gradient" if name == "gradient_norm" else f"the {name} loss", value)
        self.signals.defer()  # till the step has its row in the log
        self.update_in_progress = True
        if overflowed:
            self.loss_scale /= 2
            log.debug("step %d left out: float16 gradients overflowed; now scaled by %g", self.step, self.loss_scale)
        else:
            self.optimizer.step()
            if self.loss_scale != 1 and (self.step + 1) % LOSS_SCALE_STEPS == 0:
                self.loss_scale *= 2
        self._update_ema()
        self.step += 1
        self.update_in_progress = False
        return record

    def _find_gradients(self, stage: Stage, batch: Batch) -> dict[str, Tensor]:
        """Gradients and losses of the whole batch: the sum of all processes' parts, each by its share."""
        parts, world = self.config.accumulate, self.ranks.world
        sums: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(parts):
            part = part_of_batch(self.config, self.ranks.rank + number * world, parts * world)
            losses = self._losses(*(x[number::parts] for x in batch[:3]), own=part.own)
            losses = {name: part.share(name, stage) * loss for name, loss in losses.items()}
            losses["total"] = torch.stack(
                [self.config.weight(name, stage) * loss for name, loss in losses.items()]
            ).sum()
            scaled = losses["total"] if self.loss_scale == 1 else losses["total"] * self.loss_scale
            scaled.backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                sums[name] = sums[name] + loss.detach() if name in sums else loss.detach()
        names = (*loss_names(self.config, stage), "total")
        found = {name: sums[name] if name in sums else torch.zeros((), device=self.device) for name in names}
        self._all_reduce(found, batch.broken)
        return found

    def _losses(self, *images: Tensor, own: int) -> dict[str, Tensor]:
        """`part_losses` of content, style and target, computed where and how the run does."""
        content, style, target = (x.to(self.device, memory_format=torch.channels_last) for x in images)
        with autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            return part_losses(
                self.config, self.step, self.model, self.adapters, self.vgg, (content, style, target), own
            )

    def _all_reduce(self, losses: dict[str, Tensor], broken: Sequence[str]) -> None:
        """Gradients and losses summed over all processes, unless one of them has to stop."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        summands = [*(p.grad for p in parameters if p.grad is not None), *losses.values()]
        flat = self.ranks.flatten(summands)
        broken, stop = self.ranks.sync_status(broken, self.signals.asked if self.signals.by_agreement else None)
        if stop:
            self.signals.stop(stop)
        self._note_broken(broken)
        self.ranks.all_reduce_sum(summands, flat)
        if self.loss_scale != 1:
            torch._foreach_div_([p.grad for p in parameters if p.grad is not None], self.loss_scale)

    def _note_broken(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.skipped:
                self.skipped.append(name)
                log.warning("skipped %s: not a readable picture (%d so far)", name, len(self.skipped))

    def _set_learning_rates(self) -> None:
        encoder, rest = self.config.learning_rates(self.step)
        rates = [rest] if self.config.freeze_encoder else [rest, encoder]
        groups = self._parameter_groups()
        for index, (group, (_, share)) in enumerate(zip(self.optimizer.param_groups, groups, strict=True)):
            group["lr"] = rates[index % len(rates)] * share

    def _update_ema(self) -> None:
        values = self.model.state_dict()
        moved = 1 - self.config.ema_decay_at(self.step)
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
        model = build_on_meta(self.model.config)
        model.load_state_dict({name: value.clone() for name, value in self.ema.items()}, assign=True)
        return prepare_for_inference(model, self.device)

    def save(self) -> None:
        """Model file and checkpoint, each whole or not at all.

        Raises:
            TrainingError: a weight is not finite; what was saved before stays as it is.
        """
        if not self.ranks.is_main_process:
            return
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
            "loss_scale": self.loss_scale,
            "vgg": self.vgg_fingerprint,
            "pictures": self.pairs.counts,
        }
        write_checkpoint(self.folder / CHECKPOINT, state, self.saved_step, self.config.keep_checkpoints)
        self.saved_step = self.step

    def broadcast_state(self) -> None:
        """Wait until all processes are ready; all start from the writer's weights, should their machines compute the
        start a little differently."""
        self.ranks.sync_status()
        states = (self.vgg.state_dict(), self.model.state_dict(), self.adapters.state_dict(), self.ema)
        self.ranks.broadcast([value for state in states for value in state.values()])

    def save_last(self) -> None:
        """Save, unless an update was cut short: some weights have made the step then and some have not."""
        if not self.update_in_progress:
            self.signals.defer()
            with ignore_sigchld():
                self.save()

    def restore(self) -> None:
        """Continue from the run folder's checkpoint.

        Raises:
            CheckpointError: it is damaged, or belongs to other settings, another VGG-19 or another model.
        """
        path = self.folder / CHECKPOINT
        state = read_checkpoint(path)
        check_same_settings(self.config, state["config"])
        check_same_data(self.config, state, self.vgg_fingerprint, self.pairs.counts)
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
        self.loss_scale = state.get("loss_scale", self.loss_scale)
        self.saved_step = self.step

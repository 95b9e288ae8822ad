"""The state of a training run, one training step, and the files that the state is saved to."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, autocast, nn

from ..checkpoints.model_file import build_on_meta, prepare_for_inference, save_model
from ..checkpoints.vgg import BUILT_IN_VGG
from ..errors import CheckpointError, TrainingError
from ..models.model import StyleTransferModel
from ..runtime.device import training_dtype
from ..runtime.distributed import DistributedContext
from ..runtime.remarks import FileNote, remark
from ..runtime.signals import GracefulShutdown, ignore_sigchld
from .config import Stage, TrainConfig
from .dataset import Batch, TrainingPairs
from .initialization import fit_to_vgg, initial_networks, load_loss_network
from .muon import Muon
from .objective import Networks, batch_losses, loss_names, loss_shares
from .run_checkpoint import (
    CHECKPOINT,
    MODEL,
    check_same_data,
    check_same_settings,
    public_settings,
    read_checkpoint,
    write_checkpoint,
)

INITIAL_LOSS_SCALE = 2.0**16
LOSS_SCALE_STEPS = 1000
"""Loss scaling for float16, in which small gradients would become 0. The scale is halved when gradients overflow and
doubled every so many steps. Differs from torch.amp.GradScaler: the step's number decides, so no counter is saved."""
OPTIMIZERS: dict[str, type[torch.optim.Adam | Muon]] = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon,
}  # fmt: skip
log = logging.getLogger(__name__)


class ParameterGroup(NamedTuple):
    """Parameters with the same learning rate: the encoder's or the other one, times `lr_scale`."""

    parameters: list[nn.Parameter]
    is_encoder: bool
    lr_scale: float


class Trainer:
    """The state of a training run and the operations on it.

    Args:
        config: the settings.
        signals: receives Ctrl-C and SIGTERM.
        distributed: this process among all processes of the run.

    Raises:
        ImageError, DataError, CheckpointError, ValueError: pictures, weights or settings cannot be used.
    """

    def __init__(
        self,
        config: TrainConfig,
        signals: GracefulShutdown | None = None,
        distributed: DistributedContext | None = None,
    ) -> None:
        self.config = config
        self.signals = signals or GracefulShutdown()
        self.distributed = distributed or DistributedContext()
        self.folder = Path(config.output)
        rank, world = self.distributed.rank, self.distributed.world
        config.check_divisible(world)
        self.device = self.distributed.pick_device(config.device)
        dtype = training_dtype(config.precision, self.device)
        self.autocast_dtype = None if dtype == torch.float32 else dtype
        self.loss_scale = INITIAL_LOSS_SCALE if dtype == torch.float16 else 1.0
        self.total = config.total_steps
        self.pairs = TrainingPairs.from_config(config)
        self.vgg, self.vgg_fingerprint = load_loss_network(config, self.pairs, self.device, self.distributed)
        self.networks = initial_networks(config, self.vgg, self.device)
        self.model, self.adapters, *_ = self.networks
        self.shares_encoder = shares_encoder(config, self.networks)
        self.parameter_groups = parameter_groups(config, self.networks)
        self.parameters = [parameter for group in self.parameter_groups for parameter in group.parameters]
        parts = config.accumulate
        self.loss_shares = [loss_shares(config, rank + part * world, parts * world) for part in range(parts)]
        self.optimizer = self._new_optimizer()
        self.ema = self._copy_weights()
        self.step = 0
        self.saved_step: int | None = None
        self.update_in_progress = False
        self.skipped: list[str] = []

    def _new_optimizer(self) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": group.parameters} for group in self.parameter_groups]
        kind = OPTIMIZERS[self.config.optimizer]
        return kind(groups, lr=self.config.lr, weight_decay=self.config.weight_decay)

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def initialize(self) -> None:
        """Fit a new model's encoder and attention to the VGG-19; a model that is trained further keeps its weights."""
        fit_to_vgg(self.config, self.networks, self.pairs)
        self.ema = self._copy_weights()

    def compile(self) -> None:
        """Let torch compile the networks that take most of the time, when they are first used.

        The names of the weights do not change.
        """
        for module in (self.model.encoder, self.model.decoder, self.vgg):
            module.compile()

    # ---------------------------------------------------------------- one step

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser.

        Args:
            batch: this process's share of the batch.

        Returns:
            the losses of the whole batch by name, their weighted sum "total", and "gradient_norm".

        Raises:
            TrainingError: a loss or the gradient is not finite; no weight was changed.
            PeerError, KeyboardInterrupt: another process failed or received a signal; no weight was changed.
        """
        stage, position, _ = self.config.stage(self.step)
        if position == 0:
            self.optimizer = self._new_optimizer()  # moments of the previous stage's gradients do not apply
        encoder_rate, rate = self.config.learning_rates(self.step)
        for group, settings in zip(self.parameter_groups, self.optimizer.param_groups, strict=True):
            settings["lr"] = (encoder_rate if group.is_encoder else rate) * group.lr_scale
        losses = self._compute_gradients(stage, batch)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf)
        values = torch.stack([*losses.values(), norm]).tolist()  # the only synchronisation with the device in a step
        record = dict(zip((*losses, "gradient_norm"), values, strict=True))
        overflow = self.loss_scale > 1 and not math.isfinite(record["gradient_norm"])
        if overflow:
            record["gradient_norm"] = 0.0
        for name, value in record.items():
            if not math.isfinite(value):
                raise self._divergence("the gradient" if name == "gradient_norm" else f"the {name} loss", value)
        self._update(overflow)
        return record

    def _compute_gradients(self, stage: Stage, batch: Batch) -> dict[str, Tensor]:
        """Set the gradients of the whole batch: the sum over all parts in all processes. Returns its losses."""
        config, parts = self.config, self.config.accumulate
        names = (*loss_names(config, stage), "total")
        sums = {name: torch.zeros((), device=self.device, dtype=torch.float32) for name in names}
        self.optimizer.zero_grad(set_to_none=True)
        for index, shares in enumerate(self.loss_shares):
            part = batch.micro_batch(index, parts, self.device)
            with autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
                means = batch_losses(config, self.step, self.networks, part)
            losses = {name: shares.of(name, stage) * loss for name, loss in means.items()}
            total = torch.stack([config.weight(name, stage) * loss for name, loss in losses.items()]).sum()
            (total * self.loss_scale).backward()  # type: ignore[no-untyped-call]
            for name, loss in (*losses.items(), ("total", total)):
                sums[name] += loss.detach()
        self._all_reduce(sums, batch.notes)
        return sums

    def _all_reduce(self, losses: dict[str, Tensor], notes: Sequence[FileNote]) -> None:
        """Sum gradients and losses over all processes, unless one of them has to stop."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        summands = [*gradients, *losses.values()]
        flat = self.distributed.flatten(summands)
        stop = self.signals.asked if self.signals.by_agreement else None
        notes, stop = self.distributed.sync_status(notes, stop)
        if stop:
            self.signals.stop(stop)
        for note in notes:
            if not note.is_unreadable:
                remark(note.name, note.text)
            elif note.name not in self.skipped:
                self.skipped.append(note.name)
                log.warning("skipped picture %d: %s %s", len(self.skipped), note.name, note.text)
        self.distributed.all_reduce_sum(summands, flat)
        if self.loss_scale != 1:
            torch._foreach_div_(gradients, self.loss_scale)

    def _update(self, overflow: bool) -> None:
        """Change the weights, unless float16 gradients overflowed. Signals wait until the step is logged."""
        self.signals.defer()
        self.update_in_progress = True
        if overflow:
            self.loss_scale /= 2
            log.debug("step %d skipped: float16 gradients overflowed; new scale %g", self.step, self.loss_scale)
        else:
            self.optimizer.step()
            if self.loss_scale != 1 and (self.step + 1) % LOSS_SCALE_STEPS == 0:
                self.loss_scale *= 2
        self._update_ema()
        self.step += 1
        self.update_in_progress = False

    def _update_ema(self) -> None:
        weights = self.model.state_dict()
        change = 1 - self.config.ema_decay_at(self.step)
        torch._foreach_lerp_(list(self.ema.values()), [weights[name] for name in self.ema], change)

    def _divergence(self, name: str, value: float) -> TrainingError:
        stage = self.config.stage(min(self.step, self.total - 1))[0]
        lr = self.config.lr if stage == "style" else self.config.pretrain_lr
        advice = "Nothing is saved yet: start again"
        if self.saved_step is not None:
            advice = (
                f"The save of step {self.saved_step} is intact: start a new run from it (--init {self.folder / MODEL})"
            )
        return TrainingError(
            f"step {self.step}: {name} became {value:g}. {advice} with a lower learning rate ({stage}: {lr:g}) "
            "or --precision float32."
        )

    # ---------------------------------------------------------------- processes and files

    def broadcast_state(self) -> None:
        """Wait for all processes and copy the main process's weights to them.

        The initial weights that other machines compute may differ by rounding.
        """
        self.distributed.sync_status()
        states = (self.vgg.state_dict(), self.model.state_dict(), self.adapters.state_dict(), self.ema)
        self.distributed.broadcast([value for state in states for value in state.values()])

    def averaged_model(self) -> StyleTransferModel:
        """A copy of the model with the averaged weights, ready to stylise."""
        model = build_on_meta(self.model.config)
        model.load_state_dict({name: value.clone() for name, value in self.ema.items()}, assign=True)
        return prepare_for_inference(model, self.device)

    def save(self) -> None:
        """Write the model file and the checkpoint, each completely or not at all; only the main process writes.

        Raises:
            TrainingError: a weight is not finite; the previous files are unchanged.
        """
        if not self.distributed.is_main_process:
            return
        for name, value in (*self.model.state_dict().items(), *self.ema.items()):
            if not bool(value.half().isfinite().all()):  # the model file is float16
                raise self._divergence(f"weight {name}", float(value.abs().max()))
        metadata = {"trained_on": json.dumps({"steps": self.step, "settings": public_settings(self.config)})}
        save_model(self.averaged_model(), self.folder / MODEL, metadata=metadata, share_encoder=self.shares_encoder)
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

    def save_last(self) -> None:
        """Save before the run ends early, unless an update was interrupted: only some weights have made that step."""
        if not self.update_in_progress:
            self.signals.defer()
            with ignore_sigchld():
                self.save()

    def restore(self) -> None:
        """Continue from the checkpoint in the run folder.

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
        except (RuntimeError, ValueError, KeyError) as error:  # torch's message: a heading, then a line for each tensor
            cause = str(error).splitlines()[1 if "\n" in str(error) else 0].strip().rstrip(".")
            raise CheckpointError(
                f"{path} does not fit the model of these settings: {cause}. Resume with the --init of its first start."
            ) from error
        self.step, self.skipped = state["step"], state["skipped"]
        self.loss_scale = state.get("loss_scale", self.loss_scale)
        self.saved_step = self.step


def shares_encoder(config: TrainConfig, networks: Networks) -> bool:
    """Whether the model's encoder is the built-in VGG-19 and stays so, so that the model file need not hold it."""
    if not config.freeze_encoder or config.vgg != BUILT_IN_VGG:
        return False
    encoder, vgg = networks.model.encoder.state_dict(), networks.vgg.state_dict()
    return all(torch.equal(value, vgg[name]) for name, value in encoder.items())


def parameter_groups(config: TrainConfig, networks: Networks) -> list[ParameterGroup]:
    """The parameters to train, in the order in which checkpoints store the optimiser's state.

    With a `deep_lr_scale` other than 1, the parameters that only the levels below relu3_1 pass through are separate.
    """
    model, adapters, *_ = networks
    others = [*model.fusion.parameters(), *model.decoder.parameters(), *adapters.parameters()]
    groups = [ParameterGroup(others, False, 1.0)]
    if not config.freeze_encoder:
        groups.append(ParameterGroup(list(model.encoder.parameters()), True, 1.0))
    if config.deep_lr_scale == 1:
        return groups
    deep = {id(parameter) for module in model.deep_modules for parameter in module.parameters()}
    return [
        ParameterGroup([p for p in group.parameters if (id(p) in deep) is is_deep], group.is_encoder, scale)
        for is_deep, scale in ((False, 1.0), (True, config.deep_lr_scale))
        for group in groups
    ]

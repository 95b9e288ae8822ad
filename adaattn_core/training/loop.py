"""The training loop, from the settings to the finished model file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from ..errors import TrainingError
from ..io.files import sole_writer
from ..runtime.distributed import DistributedContext, PeerError, PeerLostError
from ..runtime.memory import is_out_of_memory
from ..runtime.progress import progress_bar
from ..runtime.signals import GracefulShutdown
from .config import TrainConfig
from .dataloader import WorkerError, batches
from .run_checkpoint import MODEL, check_run_folder
from .run_log import RunLogger, TensorBoardLogger, summary_writer_class
from .trainer import Trainer

log = logging.getLogger(__name__)

COMPILER_MODULES = ("torch._dynamo", "torch._inductor")
"""Modules whose errors come from torch.compile."""


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train a model, or continue a run. Under torchrun, this process trains as one of several.

    Args:
        config: the settings.
        resume: continue the run in the output folder.
        progress: show a progress line if stderr is a terminal, otherwise write one a minute to it.

    Returns:
        the path of the model file.

    Raises:
        ImageError, DataError, CheckpointError, TrainingError, ValueError: training cannot go on; one line says why.
        KeyboardInterrupt: Ctrl-C or SIGTERM (Terminated); all finished steps are saved.
        PeerError: another process of the run has failed; the main process reports the reason.
    """
    distributed = DistributedContext.from_env()
    try:
        folder = Path(config.output)
        with (
            GracefulShutdown(by_agreement=distributed.world > 1) as signals,
            distributed.process_group(),
            _run_folder(folder, resume) if distributed.is_main_process else nullcontext(),
        ):
            if config.tensorboard:
                summary_writer_class()  # a missing package is reported before the work starts
            trainer = Trainer(config, signals, distributed)
            _warn_of_few_pictures(trainer)
            if resume:
                trainer.restore()
            else:
                trainer.initialize()
            if trainer.step < trainer.total:
                _run_steps(trainer, progress)
            else:
                log.warning(
                    "the run in %s is finished: all %d steps are done, nothing is left to do. Raise --steps to go on",
                    config.output, trainer.total,
                )  # fmt: skip
    except PeerError as error:
        if distributed.is_main_process or isinstance(error, PeerLostError):
            raise TrainingError(str(error)) from error
        raise
    return trainer.folder / MODEL


@contextmanager
def _run_folder(folder: Path, resume: bool) -> Iterator[None]:
    """The checked run folder, in which no other process trains."""
    check_run_folder(folder, resume)
    with sole_writer(folder, "trains"):
        check_run_folder(folder, resume)  # another process may have ended a run there in between
        yield


def _warn_of_few_pictures(trainer: Trainer) -> None:
    config = trainer.config
    for name, count in trainer.pairs.counts.items():
        if count < config.batch:
            log.warning(
                "%s holds %d picture(s), fewer than the %d pairs of a step: enough to try, but a model learns these by "
                "heart. Give it some hundred",
                getattr(config, name), count, config.batch,
            )  # fmt: skip


def _run_steps(trainer: Trainer, progress: bool) -> None:
    """All remaining steps, with their log, samples and checkpoints."""
    config, distributed = trainer.config, trainer.distributed
    for name in ("checkpoints", "samples"):
        (trainer.folder / name).mkdir(parents=True, exist_ok=True)
    trainer.broadcast_state()
    if config.compile:
        trainer.compile()
    writes = distributed.is_main_process
    with _saved_on_interruption(trainer):
        board = TensorBoardLogger(trainer.folder, trainer.step, config.batch) if writes and config.tensorboard else None
        with (
            RunLogger(trainer.folder, trainer.step, board) if writes else nullcontext() as logger,
            progress_bar(
                trainer.total, trainer.step, enabled=None if progress and writes else False, piped=True
            ) as bar,
            closing(
                batches(trainer.pairs, trainer.step, config.workers, distributed.rank, distributed.world)
            ) as loaded,
        ):
            for batch in loaded:
                stage = config.stage(trainer.step)[0]
                losses = trainer.train_step(batch)
                if logger:
                    logger.add(trainer.step, stage, losses)
                trainer.signals.resume()
                bar.set_postfix_str(f"{stage} loss {losses['total']:.4f}", False)
                bar.update()
                is_last = trainer.step == trainer.total
                if logger and (is_last or trainer.step % config.sample_every == 0):
                    logger.sample(trainer.averaged_model(), trainer.pairs, trainer.step)
                if is_last or trainer.step % config.checkpoint_every == 0:
                    trainer.save()
        distributed.sync_status()  # wait until the main process has finished the last save


@contextmanager
def _saved_on_interruption(trainer: Trainer) -> Iterator[None]:
    """Save the finished steps if a signal or another process ends the block, and explain errors in one line."""
    config = trainer.config
    try:
        yield
    except KeyboardInterrupt:
        trainer.save_last()
        trainer.distributed.sync_status()
        raise
    except PeerError:
        trainer.save_last()
        raise
    except WorkerError as error:
        trainer.save_last()
        raise TrainingError(
            f"step {trainer.step}: {error}, as happens when memory runs out. Go on with --resume, and fewer --workers "
            f"(now {config.workers}) if it comes again."
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            size = f"--batch (now {config.batch}) or --crop (now {config.crop})"
            raise TrainingError(
                f"step {trainer.step}: {trainer.device} has no memory left. Make {size} smaller."
            ) from error
        if not type(error).__module__.startswith(COMPILER_MODULES):
            raise
        raise TrainingError(
            f"step {trainer.step}: torch.compile failed ({_root_cause(error)}). Train without --compile, or give it "
            "what it needs: a C++ compiler on a CPU, triton on a GPU."
        ) from error


def _root_cause(error: BaseException) -> str:
    """The first line of the error that caused this one; torch.compile wraps the compiler's error in its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

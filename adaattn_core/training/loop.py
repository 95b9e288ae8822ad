"""TODO"""

from __future__ import annotations

import logging
from contextlib import closing, nullcontext
from pathlib import Path

from ..errors import TrainingError as TrainingError
from ..runtime.distributed import DistributedContext, PeerError, PeerLostError
from ..runtime.memory import is_out_of_memory
from ..runtime.progress import progress_bar
from ..runtime.signals import GracefulShutdown
from .config import TrainConfig
from .dataloader import WorkerError, batches
from .run_checkpoint import CHECKPOINT as CHECKPOINT
from .run_checkpoint import MODEL, check_run_folder
from .run_log import RunLogger
from .tensorboard import TensorBoardLogger, summary_writer_class
from .trainer import Trainer

log = logging.getLogger(__name__)

COMPILERS = ("torch._dynamo", "torch._inductor")
"""Modules whose errors are torch.compile's."""


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train, or go on training; returns the path of the model file. Under torchrun, one process of the run.

    Raises:
        ImageError, DataError, CheckpointError, TrainingError, ValueError: each with one clear line.
        KeyboardInterrupt: Ctrl-C or SIGTERM (Terminated); what is done is saved.
        PeerError: another process of the run has failed, and the writer says why.
    """
    ranks = DistributedContext.from_env()
    try:
        with GracefulShutdown(by_agreement=ranks.world > 1) as signals, ranks.process_group():
            return _train(config, resume, progress, signals, ranks)
    except PeerError as error:
        if ranks.is_main_process or isinstance(error, PeerLostError):
            raise TrainingError(str(error)) from error
        raise


def _train(
    config: TrainConfig, resume: bool, progress: bool, signals: GracefulShutdown, ranks: DistributedContext
) -> Path:
    folder = Path(config.output)
    check_run_folder(folder, resume)
    if config.tensorboard:
        summary_writer_class()  # that it is missing is said before the work, not after
    run = Trainer(config, signals, ranks)
    _tell_of_few_pictures(run)
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
    run.broadcast_state()
    if config.compile:
        run.compile()
    _train_on(run, progress)
    return folder / MODEL


def _tell_of_few_pictures(run: Trainer) -> None:
    for name, count in run.pairs.counts.items():
        if count < run.config.batch:
            source = getattr(run.config, name)
            log.warning(
                "%s holds %d picture(s), fewer than the %d pairs of a step: enough to try, but a model learns these by "
                "heart. Give it some hundred",
                source, count, run.config.batch,
            )  # fmt: skip


def _train_on(run: Trainer, progress: bool) -> None:
    """The steps that are left; what is done is saved when something from outside ends them early."""
    try:
        _steps(run, progress)
        run.ranks.sync_status()  # till the last save is whole
    except KeyboardInterrupt:
        run.save_last()
        run.ranks.sync_status()
        raise
    except PeerError:
        run.save_last()
        raise
    except WorkerError as error:
        run.save_last()
        raise TrainingError(
            f"step {run.step}: {error}, as happens when memory runs out. Go on with --resume, and fewer --workers "
            f"(now {run.config.workers}) if it comes again."
        ) from error
    except Exception as error:
        if is_out_of_memory(error):
            size = f"--batch (now {run.config.batch}) or --crop (now {run.config.crop})"
            raise TrainingError(f"step {run.step}: {run.device} has no memory left. Make {size} smaller.") from error
        if not type(error).__module__.startswith(COMPILERS):
            raise
        raise TrainingError(
            f"step {run.step}: torch.compile failed ({_last_words(error)}). Train without --compile, or give it "
            "what it needs: a C++ compiler on a CPU, triton on a GPU."
        ) from error


def _steps(run: Trainer, progress: bool) -> None:
    config, ranks = run.config, run.ranks
    enabled = None if progress and ranks.is_main_process else False
    board = (
        TensorBoardLogger(run.folder, run.step, config.batch) if config.tensorboard and ranks.is_main_process else None
    )
    log_or_none = RunLogger(run.folder, run.step, board) if ranks.is_main_process else nullcontext()
    reading = closing(batches(run.pairs, run.step, config.workers, ranks.rank, ranks.world))
    with log_or_none as record, progress_bar(run.total, run.step, enabled=enabled) as bar, reading as found:
        for batch in found:
            stage = config.stage(run.step)[0]
            losses = run.train_step(batch)
            if record:
                record.add(run.step, stage, losses)
            run.signals.resume()
            bar.set_postfix_str(f"{stage} loss {losses['total']:.4f}", False)
            bar.update()
            if record and (run.step % config.sample_every == 0 or run.step == run.total):
                record.sample(run.averaged_model(), run.pairs, run.step)
            if run.step % config.checkpoint_every == 0 or run.step == run.total:
                run.save()


def _last_words(error: BaseException) -> str:
    """The first line of the error that an error came from; torch.compile wraps the compiler's in its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

"""A pipeline of three stages: one thread reads ahead, the caller's thread works, one thread writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")
Result = TypeVar("Result")
Written = TypeVar("Written")

PREFETCH = 2
"""Jobs that wait before and after the work: enough to hide files that are slow in turn."""


def prefetch_map(
    jobs: Iterable[Job],
    read: Callable[[Job], Read],
    work: Callable[[Job, Read], Result],
    write: Callable[[Job, Result], Written],
    ahead: int = PREFETCH,
) -> Generator[tuple[Job, Written], None, None]:
    """Read, process and write each job; yields the jobs in order with the results of `write`.

    An error in any stage, or Ctrl-C, ends the pipeline. Finished results are still written, and no write is cut off. If
    the caller's loop may end in another way, `contextlib.closing` around the generator waits for the threads.

    Args:
        jobs: consumed lazily.
        read: called in the reader thread.
        work: called in the caller's thread with the job and the result of `read`.
        write: called in the writer thread with the job and the result of `work`.
        ahead: maximum number of jobs that wait for `work`, and of results that wait for `write`, which bounds memory;
            0 runs everything in the caller's thread.
    """
    if not ahead:
        yield from ((job, write(job, work(job, read(job)))) for job in jobs)
        return
    source = iter(jobs)
    reads: deque[tuple[Job, Future[Read]]] = deque()
    writes: deque[tuple[Job, Future[Written]]] = deque()
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as reader:
        try:
            reads.extend((job, reader.submit(read, job)) for job in islice(source, ahead))
            while reads:
                job, reading = reads.popleft()
                reads.extend((job, reader.submit(read, job)) for job in islice(source, ahead - len(reads)))
                writes.append((job, writer.submit(write, job, work(job, reading.result()))))
                del reading  # holds an image
                while writes and (len(writes) > ahead or writes[0][1].done()):
                    yield _oldest_result(writes)
            while writes:
                yield _oldest_result(writes)
        finally:
            for _, reading in reads:
                reading.cancel()


def _oldest_result(writes: deque[tuple[Job, Future[Written]]]) -> tuple[Job, Written]:
    job, writing = writes.popleft()
    return job, writing.result()

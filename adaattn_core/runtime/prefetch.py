"""Files read ahead and written behind, in threads of their own, while the pictures between are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")
Made = TypeVar("Made")
Written = TypeVar("Written")

PREFETCH = 2
"""Jobs that wait on either side of the work: enough for files that take turns being slow."""


def prefetch_map(
    jobs: Iterable[Job],
    read: Callable[[Job], Read],
    work: Callable[[Job, Read], Made],
    write: Callable[[Job, Made], Written],
    ahead: int = PREFETCH,
) -> Generator[tuple[Job, Written], None, None]:
    """Each job read, worked on in this thread, and written; jobs and what `write` returned come out in order.

    At most `ahead` jobs wait to be worked on, and as many to be written, so memory does not grow with their number;
    with 0 nothing is done ahead. An error of any of the three ends it, and so does Ctrl-C: what is made by then is
    still written, and nothing is left half written by a thread that was cut off. Where the loop may end in
    another way, `contextlib.closing` around it waits for the threads.
    """
    if not ahead:
        yield from ((job, write(job, work(job, read(job)))) for job in jobs)
        return
    source = iter(jobs)
    coming: deque[tuple[Job, Future[Read]]] = deque()
    going: deque[tuple[Job, Future[Written]]] = deque()
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as reader:
        try:
            coming.extend((job, reader.submit(read, job)) for job in islice(source, ahead))
            while coming:
                job, found = coming.popleft()
                coming.extend((job, reader.submit(read, job)) for job in islice(source, ahead - len(coming)))
                going.append((job, writer.submit(write, job, work(job, found.result()))))
                del found  # holds a picture
                while going and (len(going) > ahead or going[0][1].done()):
                    yield _finished(going)
            while going:
                yield _finished(going)
        finally:
            for _, waiting in coming:
                waiting.cancel()


def _finished(going: deque[tuple[Job, Future[Written]]]) -> tuple[Job, Written]:
    job, written = going.popleft()
    return job, written.result()

"""Batches prepared ahead of the learner, in order, by threads: copying frames holds no lock that learning wants."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pixelrl.learning.batch import Batch


class Prefetcher:
    """The batch of a step, prepared while earlier steps were learned from.

    A batch is a pure function of its step, so results are the same for any number of threads. An error in a thread is
    raised where its batch is asked for. Leave the `with` block, and no thread is left.
    """

    def __init__(self, batch_at: Callable[[int], Batch], steps: int, *, threads: int) -> None:
        """Prepare what `batch_at` returns for each step before `steps`, in so many threads; 0: only when asked for."""
        self._batch_at, self._steps = batch_at, steps
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader") if threads else None
        self._ahead = threads + 1
        self._next = 0
        self._waiting: deque[Future[Batch]] = deque()

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step; the following ones are prepared meanwhile."""
        if self._pool is None:
            return self._batch_at(step)
        if step != self._next - len(self._waiting):  # not the one after the last: begin there
            self._forget()
            self._next = step
        while len(self._waiting) <= self._ahead and self._next < max(self._steps, step + 1):
            self._waiting.append(self._pool.submit(self._batch_at, self._next))
            self._next += 1
        return self._waiting.popleft().result()

    def _forget(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads; a batch that is under way is waited for."""
        self._forget()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

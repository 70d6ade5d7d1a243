"""Threads of one transfer: the first failure, or the user's interruption, stops all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager


class Stopped(Exception):
    """The transfer was stopped, by a failure in another thread or by the user."""


class Workers:
    """The threads of a transfer, and how they are stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        """Set when nothing more is to be done."""
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def run(self, threads: int, work: Callable[[], None], *beside: Callable[[], None]) -> None:
        """Runs `work` in some threads, and each of what goes on `beside` it in one more.

        Returns when all have ended. The first failure stops the others and is raised.
        """
        with ThreadPoolExecutor(threads + len(beside), "transfer") as pool:
            futures = [pool.submit(one) for one in beside]
            futures += [pool.submit(work) for _ in range(threads)]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:
                self.stop()
                raise
            if any(future.exception() is not None for future in done):
                self.stop()
        _raise_first(futures)

    def stop(self) -> None:
        """Stops every thread as soon as it looks, and wakes those that wait."""
        self.stopped.set()
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raises `Stopped` after a stop."""
        if self.stopped.is_set():
            raise Stopped

    @contextmanager
    def waking(self, callback: Callable[[], None]) -> Iterator[None]:
        """Has something called at a stop, for the length of a block."""
        with self._lock:
            self._callbacks.append(callback)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


def _raise_first(futures: Sequence[Future[None]]) -> None:
    """Raises what went wrong, rather than that others were stopped by it."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda one: isinstance(one, Stopped)):
        raise error

"""The agent: polls, updates by itself, and drains when it is asked to stop.

Polling alone is correct. It waits 300 s ± 10 %, wakes earlier when a stage opens for this device,
and after a failure backs off with full jitter, so that a fleet does not return all at once.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from sealift.client.agent.cycle import Cycle, Draining, Outcome
from sealift.client.agent.home import DeviceHome
from sealift.client.agent.joining import JoinRefused
from sealift.host.files import FileLock
from sealift.host.hashing import Advance
from sealift.protocol.errors import SealiftError

POLL_S = 300.0
JITTER = 0.1
FIRST_RETRY_S = 2.0
STAGE_SPREAD_S = 10.0
"""A stage that opens for many devices at once is taken up over this many seconds."""


@dataclass(slots=True)
class Agent:
    """Runs the cycle again and again.

    Attributes:
        home: The device's home.
        make_cycle: Makes a cycle that shows its progress through the given function.
        poll_s: Seconds between polls.
        say: Writes a line of the log.
        random: For jitter.
    """

    home: DeviceHome
    make_cycle: Callable[[Callable[[str, int], object]], Cycle]
    poll_s: float = POLL_S
    say: Callable[[str], object] = lambda line: sys.stderr.write(line + "\n")
    random: random.Random = field(default_factory=random.Random)
    _stop: threading.Event = field(default_factory=threading.Event)
    _failures: int = 0

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT.

        Raises:
            HomeLocked: If another agent runs on this home.
        """
        if not self.home.exists:
            raise JoinRefused(
                f"{self.home.folder} has joined nothing yet",
                hint="Ask a publisher for a join string, then: sealift join STRING",
            )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        with FileLock(self.home.folder / "agent.lock").held(wait_s=1, purpose="agent run"):
            self._log("started", poll_s=f"{self.poll_s:g}")
            while not self._stop.is_set():
                wait_s = self._turn()
                if self._stop.wait(wait_s):
                    break
            self._log("stopped")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._log("draining", signal=signal.Signals(number).name)
        self._stop.set()

    def _turn(self) -> float:
        """One cycle; returns how long to wait for the next, in seconds."""
        try:
            outcomes = self.make_cycle(self._progress).run()
        except Draining:
            return 0
        except (SealiftError, OSError) as error:
            # The disk or the network may be right again the next time.
            self._log("failed", message=str(error))
            return self._backoff()
        except Exception as error:  # noqa: BLE001 - nothing that a server sends may end the agent
            self._log("failed", message=f"unexpected: {type(error).__name__}: {error}")
            return self._backoff()
        for outcome in outcomes:
            self._log_outcome(outcome)
        if any(outcome.error for outcome in outcomes):
            return self._backoff()
        self._failures = 0
        return self._wait_s(outcomes)

    def _wait_s(self, outcomes: list[Outcome]) -> float:
        poll = self.poll_s * self.random.uniform(1 - JITTER, 1 + JITTER)
        openings = [
            outcome.judgement.decision.opens_at - self.home.clock.wall()
            for outcome in outcomes
            if outcome.judgement and outcome.judgement.decision.opens_at
        ]
        soonest = min(openings, default=None)
        if soonest is None or soonest >= poll:
            return poll
        return min(poll, max(0, soonest) + self.random.uniform(0, STAGE_SPREAD_S))

    def _backoff(self) -> float:
        self._failures += 1
        ceiling = min(self.poll_s, FIRST_RETRY_S * 2 ** min(self._failures, 16))
        return self.random.uniform(0, ceiling)

    @contextmanager
    def _progress(self, label: str, total_bytes: int) -> Iterator[Advance]:
        """Logs a transfer, and ends it when the agent drains; it goes on where it was."""
        self._log("fetching", release=label, bytes=total_bytes)
        started = time.monotonic()

        def advance(count: int) -> None:
            del count
            if self._stop.is_set():
                raise Draining("the agent is stopping")

        yield advance
        self._log("fetched", release=label, seconds=f"{time.monotonic() - started:.1f}")

    def _log_outcome(self, outcome: Outcome) -> None:
        name = str(outcome.artifact)
        if outcome.changed and outcome.after is not None:
            self._log("activated", artifact=name, version=outcome.after.active.version)
        if outcome.error is not None:
            self._log("refused", artifact=name, message=outcome.error.message)
        elif outcome.judgement is not None and not outcome.changed:
            decision = outcome.judgement.decision
            self._log("kept", artifact=name, reason=decision.reasons[0].value)

    def _log(self, event: str, **fields: object) -> None:
        parts = " ".join(f"{key}={value!s}" for key, value in fields.items()).replace("\n", "; ")
        self.say(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {event} {parts}".rstrip())

"""Timing of whole commands, on a machine that otherwise lies.

Free memory goes back to the host and is slow to come again, so every run is preceded by touching
2.5 GiB, for every competitor alike. The clock starts before the process does and stops when it has
ended. CPU time and peak memory are those of the command and all that it started; servers are
measured apart, through `/proc`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOUCHED_BYTES = 2560 * 1024 * 1024
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    server_cpu_s: float
    server_peaks: Mapping[str, int]
    """Peak memory in bytes of each server, by name."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Processes that serve while something else is timed, by name."""

    pids: Mapping[str, int]

    def start(self) -> float:
        """Forgets their peaks; gives the CPU seconds used so far."""
        for pid in self.pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self.cpu_s()

    def cpu_s(self) -> float:
        """CPU seconds used so far, by all of them."""
        return sum(_cpu_s(pid) for pid in self.pids.values())

    def peaks(self) -> dict[str, int]:
        """Peak memory in bytes since `start`, by name."""
        return {name: _peak_bytes(pid) for name, pid in self.pids.items()}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def touch_memory() -> None:
    """Has the machine back its memory again."""
    program = f"bytearray({TOUCHED_BYTES})"
    subprocess.run([sys.executable, "-c", program], check=True)


def timed(
    command: Sequence[str | Path],
    servers: Servers,
    *,
    environment: Mapping[str, str] | None = None,
    log: Path,
) -> Sample:
    """Runs a command to its end.

    Raises:
        SystemExit: If it fails; its log is shown.
    """
    touch_memory()
    before = servers.start()
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        words = " ".join(map(str, command))
        raise SystemExit(f"{words} ended with {process.returncode}:\n{log.read_text()[-4000:]}")
    return Sample(
        wall_s,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        servers.cpu_s() - before,
        servers.peaks(),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our runs beside the baseline's, round by round."""

    name: str
    ours: Sequence[Sample]
    baseline: Sequence[Sample]
    target: float

    @property
    def ratios(self) -> list[float]:
        """Our wall time over the baseline's, of each round; sorted."""
        pairs = zip(self.ours, self.baseline, strict=True)
        return sorted(ours.wall_s / base.wall_s for ours, base in pairs)

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def peak_bytes(self) -> int:
        """The most memory of our own command in any round."""
        return max(sample.peak_bytes for sample in self.ours)

    def server_peak_bytes(self, name: str) -> int:
        """The most memory of a server in any of our rounds."""
        return max(sample.server_peaks.get(name, 0) for sample in self.ours)

    def lines(self) -> list[str]:
        """For people."""
        low, high = self.ratios[0], self.ratios[-1]
        verdict = "met" if self.median <= self.target else "MISSED"
        found = [
            f"{self.name}: ratio {low:.2f} / {self.median:.2f} / {high:.2f} (min / median / max), "
            f"target {self.target}: {verdict}"
        ]
        for who, samples in (("sealift", self.ours), ("baseline", self.baseline)):
            wall = statistics.median(sample.wall_s for sample in samples)
            cpu = statistics.median(sample.cpu_s for sample in samples)
            server_cpu = statistics.median(sample.server_cpu_s for sample in samples)
            peak = max(sample.peak_bytes for sample in samples) / 1e6
            peaks = ", ".join(
                f"{name} {max(sample.server_peaks[name] for sample in samples) / 1e6:.0f} MB"
                for name in samples[0].server_peaks
            )
            found.append(
                f"    {who:9} {wall:6.2f} s, CPU {cpu:5.2f} s, peak {peak:4.0f} MB"
                f"; servers CPU {server_cpu:5.2f} s, {peaks}"
            )
        return found

"""Timing of whole commands, on a machine that otherwise lies.

Free memory goes back to the host and is slow to come again, so every run is preceded by touching
2.5 GiB, for every competitor alike. The clock starts before the process does and stops when it has
ended. CPU time and peak memory are those of the command and all that it started; servers are
measured apart, through `/proc`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOUCHED_BYTES = 2560 * 1024 * 1024
# A process of its own starts the command: Linux counts the memory of whoever starts a process as a
# part of its peak, and this one is some 10 MB.
_LAUNCHER = """
import json, os, resource, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
started = time.perf_counter()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ,
                      file_actions=[(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)])
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - started
print(json.dumps([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime,
                  usage.ru_maxrss]))
"""
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
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, log, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        check=True,
    )
    code, wall_s, cpu_s, peak_kib = json.loads(done.stdout)
    if code != 0:
        words = " ".join(map(str, command))
        raise SystemExit(f"{words} ended with {code}:\n{log.read_text()[-4000:]}")
    return Sample(wall_s, cpu_s, peak_kib * 1024, servers.cpu_s() - before, servers.peaks())


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

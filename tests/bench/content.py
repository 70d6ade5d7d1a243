"""`make bench PART=content`: how long a model takes to its publisher's server and to a new device.

Whole commands are timed, `sealift push` and `sealift update`, beside what people would do without
Sealift:

- update: `curl` of the same bytes from the same store, then `openssl dgst -sha256`, then `sync` of
  the file. The store is SeaweedFS or MinIO, by a presigned address; for gRPC from a folder it is
  the Sealift server's own HTTP side, as nothing else has those bytes.
- push: `openssl dgst -sha256`, then an S3 client's put of the same file into the same store, in a
  process of its own. The client is minio-py with parts of 64 MiB, the only one that pip installs.
  For gRPC to a folder the put goes to the first S3 store.

All in one run, the order rotated each round. Outside the clock, what was installed is hashed, and
a byte is flipped in each store to see that Sealift refuses it. Exit 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.measuring import Comparison, Sample, timed  # noqa: E402
from bench.model import make_model, relabel  # noqa: E402
from bench.places import ARTIFACT, ENVIRONMENT, Place, installed_digest, place  # noqa: E402
from sealift.host.hashing import sha256_file  # noqa: E402
from sealift.protocol.names import Digest  # noqa: E402
from support.s3 import SYSTEM_CACHE  # noqa: E402

CACHE = ROOT / ".cache" / "bench"
UPDATE_TARGETS = {"folder": 1.5, "seaweedfs": 1.2, "minio": 1.2}
PUSH_TARGET = 1.5
MAX_PEAK_BYTES = 200 * 1024 * 1024
PUT = """
import sys
from minio import Minio
endpoint, access, secret, bucket, name, path = sys.argv[1:]
client = Minio(endpoint=endpoint, access_key=access, secret_key=secret, secure=False,
               region="us-east-1")
client.fput_object(bucket_name=bucket, object_name=name, file_path=path, part_size=64 << 20)
"""


@dataclass
class Bench:
    """One run of all.

    Attributes:
        folder: For everything that is written.
        model: The file that is pushed; its label changes.
        places: Where content comes from.
        samples: What was measured, by (what, place, who), a round each.
    """

    folder: Path
    model: Path
    places: list[Place]
    samples: dict[tuple[str, str, str], list[Sample]] = field(default_factory=dict)
    _first: dict[str, Digest] = field(default_factory=dict)
    _labels: int = 0

    @property
    def log(self) -> Path:
        """The output of the command that runs."""
        return self.folder / "command.log"

    def prepare(self) -> None:
        """Publishes the release that devices fetch, at each place."""
        for one in self.places:
            self._new_label()
            version = f"{ARTIFACT}@1.0.0"
            one.run(one.publisher, "push", self.model, version, "--kind", "model", "--to", "stable")
            self._first[one.name] = sha256_file(self.model)

    def round(self, number: int) -> None:
        """Times everything once, in another order each time."""
        runs: list[tuple[str, Place, str, Callable[[Place], Sample]]] = []
        for one in self.places:
            runs += [
                ("update", one, "sealift", self._update),
                ("update", one, "baseline", self._curl),
                ("push", one, "sealift", self._push),
                ("push", one, "baseline", self._put),
            ]
        start = number * 5 % len(runs)
        for what, one, who, run in runs[start:] + runs[:start]:
            sample = run(one)
            self.samples.setdefault((what, one.name, who), []).append(sample)
            print(f"round {number + 1}: {what} {one.name} {who}: {sample.wall_s:.2f} s", flush=True)

    def comparisons(self) -> list[Comparison]:
        """What was measured."""
        found = []
        for one in self.places:
            for what, target in (("update", UPDATE_TARGETS[one.name]), ("push", PUSH_TARGET)):
                found.append(
                    Comparison(
                        f"{what} {one.name}",
                        self.samples[what, one.name, "sealift"],
                        self.samples[what, one.name, "baseline"],
                        target,
                    )
                )
        return found

    def _update(self, one: Place) -> Sample:
        with self._device(one) as home:
            sample = timed(
                one.sealift(home, "update"), one.servers, environment=ENVIRONMENT, log=self.log
            )
            if installed_digest(home) != self._first[one.name]:
                raise SystemExit(f"the device has not got the model:\n{self.log.read_text()}")
        return sample

    def _curl(self, one: Place) -> Sample:
        out = self.folder / "baseline.bin"
        script = (
            'curl --silent --show-error --fail --output "$1" "$2" && '
            'openssl dgst -sha256 "$1" && sync "$1"'
        )
        url = one.blob_url(self._first[one.name])
        sample = timed(["sh", "-c", script, "sh", out, url], one.servers, log=self.log)
        if sha256_file(out) != self._first[one.name]:
            raise SystemExit("the baseline got other bytes")
        out.unlink()
        return sample

    def _push(self, one: Place) -> Sample:
        label = self._new_label()
        return timed(
            one.sealift(one.publisher, "push", self.model, f"{ARTIFACT}@1.0.{label}"),
            one.servers,
            environment=ENVIRONMENT,
            log=self.log,
        )

    def _put(self, one: Place) -> Sample:
        """The put goes to the place's own store, for a folder to the first S3 store."""
        where = one if one.bucket is not None else self.places[1]
        bucket = where.bucket
        if bucket is None:
            raise SystemExit("the baseline of a push needs an S3 store")
        settings = bucket.settings
        label = self._new_label()
        script = 'openssl dgst -sha256 "$1" && shift && exec "$@"'
        put = [sys.executable, "-c", PUT, settings.endpoint.removeprefix("http://")]
        put += [settings.access_key, settings.secret_key.get_secret_value(), settings.bucket]
        put += [f"baseline-{label}", str(self.model)]
        sample = timed(["sh", "-c", script, "sh", self.model, *put], where.servers, log=self.log)
        bucket.remove(f"baseline-{label}")
        return sample

    def _new_label(self) -> int:
        """Makes the model one that no store has yet."""
        self._labels += 1
        relabel(self.model, self._labels)
        return self._labels

    @contextmanager
    def _device(self, one: Place) -> Iterator[Path]:
        home = one.new_device("device")
        try:
            yield home
        finally:
            shutil.rmtree(home)

    def check_refusals(self) -> list[str]:
        """Flips a byte at each place, and sees that a new device refuses the model by name."""
        found = []
        for one in self.places:
            digest = self._first[one.name]
            with one.flipped(digest, self.folder / "flipped.bin"), self._device(one) as home:
                command = one.sealift(home, "--output", "json", "update")
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                output = done.stdout + done.stderr
                if done.returncode != 1 or installed_digest(home) is not None:
                    raise SystemExit(f"{one.name}: a flipped byte was not refused:\n{output}")
                if "content_mismatch" not in output and "SHA-256" not in output:
                    raise SystemExit(f"{one.name}: refused, but not for its content:\n{output}")
            found.append(f"{one.name}: one flipped byte was refused, exit 1, nothing activated")
        return found


def run(places: list[str], mib: int, rounds: int) -> int:
    """Measures and prints; gives the exit code."""
    model = CACHE / "model.safetensors"
    make_model(model, mib)
    folder = CACHE / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            running = [stack.enter_context(place(one, folder / one)) for one in places]
            bench = Bench(folder, model, running)
            bench.prepare()
            for number in range(rounds):
                bench.round(number)
            refusals = bench.check_refusals()
    finally:
        shutil.rmtree(folder)
    comparisons = bench.comparisons()
    print(f"\n{model.stat().st_size / 1e6:,.0f} MB, {rounds} rounds; 1 MB = 1e6 bytes")
    for one in comparisons:
        print("\n".join(one.lines()))
    print("\n".join(refusals))
    peaks = {
        one.name: max(one.peak_bytes, one.server_peak_bytes("sealift-server"))
        for one in comparisons
    }
    worst = max(peaks, key=lambda name: peaks[name])
    fits = peaks[worst] < MAX_PEAK_BYTES
    print(
        f"peak of any Sealift process {peaks[worst] / 1e6:.0f} MB ({worst}), "
        f"target {MAX_PEAK_BYTES / 1e6:.0f} MB: {'met' if fits else 'MISSED'}"
    )
    return 0 if fits and all(one.median <= one.target for one in comparisons) else 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--places", nargs="+", choices=list(UPDATE_TARGETS), default=None)
    arguments = parser.parse_args()
    places = arguments.places or list(UPDATE_TARGETS)
    if arguments.places is None and not (SYSTEM_CACHE / "minio").exists():
        places.remove("minio")
        print("MinIO is not installed: left out. `make test-system` installs it.")
    return run(places, arguments.mib, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())

"""`device/active.json`: the one pointer that says which release of each artifact is active.

Its transitions are pure: each gives a new pointer, and `save` replaces the file at once. Several
artifacts that must change together change in one pointer and one `save`. The caller holds the
home's lock from `load` to `save`; whoever only reads needs none.

    {"schema": 1, "artifacts": {"acme/llama-edge": {
        "active": {"version": "1.4.0", "digest": HEX},
        "last_good": {"version": "1.3.2", "digest": HEX},   left out if there is none
        "since": 1790000000}}}                              Unix seconds of the activation

    PointerError                 each is a `SealiftError`
    ├── DamagedPointer           the file is not what was written
    ├── NewerPointer             a newer Sealift wrote it
    └── NoLastGood               there is nothing to go back to
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from sealift.host.files import Step, no_step, read_or_none, write_atomically
from sealift.protocol.documents import Time
from sealift.protocol.errors import InvalidDocument, SealiftError
from sealift.protocol.names import ArtifactId, Digest, Version
from sealift.protocol.parsing import encode_document, parse_document, parse_json

SCHEMA = 1


class PointerError(SealiftError):
    """Something is wrong with the pointer."""


class DamagedPointer(PointerError):
    """The file is not what was written. It is never taken for an empty one."""


class NewerPointer(PointerError):
    """A newer Sealift wrote the file."""


class NoLastGood(PointerError):
    """There is no release to go back to."""


class ReleaseId(BaseModel):
    """One release of an artifact that is known from elsewhere."""

    model_config = ConfigDict(frozen=True)

    version: Version
    digest: Digest


class ActiveRelease(BaseModel):
    """What is active of one artifact, and what to go back to."""

    model_config = ConfigDict(frozen=True)

    active: ReleaseId
    last_good: ReleaseId | None = None
    """The newest release before the active one that was not left because it was bad."""
    since: Time


class ActivePointer(BaseModel):
    """Which release of each artifact is active."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_version: Annotated[int, Field(alias="schema", ge=1)] = SCHEMA
    artifacts: Mapping[ArtifactId, ActiveRelease] = {}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file; without one nothing is active.

        Raises:
            DamagedPointer: If it is not what was written.
            NewerPointer: If a newer Sealift wrote it.
        """
        data = read_or_none(path)
        return cls() if data is None else cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Self:
        """Reads the file's bytes; `path` is for the messages. Raises as `load` does."""
        try:
            value = parse_json(data)
            schema = value.get("schema") if isinstance(value, dict) else None
            if isinstance(schema, int) and schema > SCHEMA:
                raise NewerPointer(
                    f"{path} was written by a newer Sealift (schema {schema}, known is {SCHEMA})",
                    hint="Install the newer Sealift again.",
                )
            pointer = parse_document(cls, data)
        except InvalidDocument as error:
            raise _damaged(path, error.message) from error
        if "schema_version" not in pointer.model_fields_set:
            raise _damaged(path, "it does not say its schema")
        return pointer

    def save(self, path: Path, *, step: Step = no_step) -> None:
        """Replaces the file at once; when it returns this is durable.

        Steps: `active.json:write`, `active.json:rename`, `active.json:sync`.

        Raises:
            DiskFull: If there is no room; the old pointer stays.
            Unwritable: If it cannot be written otherwise; the old pointer stays.
        """
        write_atomically(path, encode_document(self), mode=0o644, step=step)

    def get(self, artifact: ArtifactId) -> ActiveRelease | None:
        """What is active of an artifact, or None."""
        return self.artifacts.get(artifact)

    def digests(self) -> frozenset[Digest]:
        """Every release that must stay complete on the disk: active and last good."""
        return frozenset(
            release.digest
            for entry in self.artifacts.values()
            for release in (entry.active, entry.last_good)
            if release is not None
        )

    def with_active(
        self, artifact: ArtifactId, release: ReleaseId, *, keep_last_good: bool, now: int
    ) -> Self:
        """With another release active; without a change if it is active already.

        Args:
            artifact: Of what.
            release: What is to be active; it is complete in the store.
            keep_last_good: True if the release that is left was good, and so becomes the last
                good. False if it is left because it is bad (undo, rollback, revert, revocation, a
                failed soak): then the last good stays what it was, unless it is now active.
            now: Unix seconds.
        """
        entry = self.artifacts.get(artifact)
        if entry is not None and entry.active.digest == release.digest:
            return self
        last_good = None
        if entry is not None:
            last_good = entry.active if keep_last_good else entry.last_good
        if last_good is not None and last_good.digest == release.digest:
            last_good = None
        return self._with(artifact, ActiveRelease(active=release, last_good=last_good, since=now))

    def with_undone(self, artifact: ArtifactId, *, now: int) -> Self:
        """With the last good release active again.

        Raises:
            NoLastGood: If there is none.
        """
        entry = self.artifacts.get(artifact)
        if entry is None or entry.last_good is None:
            raise NoLastGood(
                f"{artifact} has no earlier release on this device to go back to",
                hint="`pin` installs a release of your choice.",
            )
        return self.with_active(artifact, entry.last_good, keep_last_good=False, now=now)

    def without_last_good(self, artifact: ArtifactId) -> Self:
        """With nothing to go back to, as when the last good release was revoked."""
        entry = self.artifacts.get(artifact)
        if entry is None or entry.last_good is None:
            return self
        return self._with(artifact, entry.model_copy(update={"last_good": None}))

    def without(self, artifact: ArtifactId) -> Self:
        """With nothing active of an artifact."""
        left = {name: entry for name, entry in self.artifacts.items() if name != artifact}
        return self.model_copy(update={"artifacts": left})

    def _with(self, artifact: ArtifactId, entry: ActiveRelease) -> Self:
        return self.model_copy(update={"artifacts": {**self.artifacts, artifact: entry}})


def _damaged(path: Path, what: str) -> DamagedPointer:
    return DamagedPointer(
        f"{path} is damaged: {what}",
        hint="Move it away and run `sealift update`: what is offered is activated again.",
    )

"""One namespace's trust, from bytes on the network to what the home believes.

The stock `Updater` verifies in a scratch copy; `Admission` judges what it left there; then the
root, the marks and the files become the home's, in this order, each durable before the next:
newest root (rules T1, T2), marks (T3), files, pointer. After a crash the home believes the old or
the new, or, between marks and pointer, nothing until it admits again; never less than its marks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    SlowRetrievalError,
    UnsignedMetadataError,
)
from tuf.ngclient import Updater, UpdaterConfig

from sealift.client.trust.admission import (
    Admission,
    Admitted,
    Moment,
    Problem,
    SignedFiles,
    wanted_artifacts,
)
from sealift.client.trust.fetcher import BASE_URL, Held, RepositoryFetcher
from sealift.client.trust.memory import Memory
from sealift.client.trust.scratch import Generation, Generations
from sealift.host.clock import Clock
from sealift.host.files import Step, make_folder, no_step, read_or_none, write_atomically, writing
from sealift.protocol import layout, metadata
from sealift.protocol.errors import RuleViolation
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, Namespace
from sealift.protocol.reasons import Reason
from sealift.protocol.trusted_time import trusted_time

# The stock client logs what it tries; people read our own reasons instead.
logging.getLogger("tuf").setLevel(logging.CRITICAL)

READ_TRIES = 5
_TRIED_AGAIN = frozenset({Reason.BAD_SIGNATURE, Reason.ROLLED_BACK, Reason.MALFORMED})
"""Refusals that an admission without the cache may not meet."""


class MemoryStore(Protocol):
    """Where a home keeps a namespace's memory: synced when `save` returns."""

    def load(self) -> Memory:
        """What is remembered."""

    def save(self, memory: Memory, problems: Mapping[str, Problem], *, step: Step) -> None:
        """Remembers, durably, and replaces the problems of the last admission."""

    def problems(self) -> Mapping[str, Problem]:
        """The problems of the last admission, by role; the key `""` is of the whole."""


@dataclass(frozen=True, slots=True)
class NamespaceTrust:
    """One namespace's trust in one home.

    Attributes:
        namespace: Whose.
        root_file: Where the newest admitted root lies, outside every cache (rule T1).
        generations: The cache of signed files.
        store: Where the memory is kept.
        clock: The machine's clocks.
        artifacts: The artifacts that are wanted; None for all.
        step: The crash hook.
    """

    namespace: Namespace
    root_file: Path
    generations: Generations
    store: MemoryStore
    clock: Clock
    artifacts: tuple[ArtifactName, ...] | None = None
    step: Step = no_step

    def moment(self, memory: Memory) -> Moment:
        """Now, judged by the clocks and the signed bound.

        The bound counts only as long as root names the key that signed it (rule T15): else who
        stole that key could set a time that no later file outlives.
        """
        clock = self.clock
        boot_id, boot_s = clock.boot_id(), clock.boot_s()
        bound = memory.bound
        if bound is not None and not self._is_online_key(bound.signer):
            bound = None
        signed = bound.signed_bound() if bound else None
        return Moment(trusted_time(clock.wall(), boot_id, boot_s, signed), boot_id, boot_s)

    def _is_online_key(self, fingerprint: str) -> bool:
        """True unless the newest root names another key for the timestamp."""
        if not self.root_file.exists():
            return True
        return metadata.fingerprint(metadata.online_key(self._root().root)) == fingerprint

    def held(self) -> Held:
        """What to tell the server in a poll."""
        current = self.believed()
        versions = {layout.ROOT: self._root().version}
        documents: tuple[bytes, ...] = ()
        if current is not None:
            versions |= {role: file.version for role, file in current.roles.items()}
            documents = tuple(metadata.sha256_digest(data) for data in current.documents.values())
        return Held(
            self.namespace,
            versions,
            self.artifacts or (),
            all_artifacts=self.artifacts is None,
            documents=documents,
        )

    def _root(self) -> RoleFile:
        data = read_or_none(self.root_file)
        if data is None:
            raise RuleViolation(
                "T1", Reason.MISSING, f"the root of {self.namespace} is gone", role=layout.ROOT
            )
        return RoleFile.parse(layout.ROOT, data)

    def believed(self) -> Admitted | None:
        """What the home believes, read back from its cache and verified anew; None if nothing.

        Expired files are among it, with their problem named: what is believed runs on.
        """
        memory = self.store.load()
        for _ in range(READ_TRIES):
            current = self.generations.current()
            if current is None:
                return None
            try:
                files = SignedFiles(current.role_files(), current.document_files())
                admission = Admission(
                    self.namespace, memory, self.moment(memory), reading_back=True
                )
                return admission.judge(files, self.store.problems(), self.artifacts)
            except FileNotFoundError:
                continue  # another process replaced the generation meanwhile
            except RuleViolation:
                return None  # a damaged cache: the next admission makes it anew
        return None

    def admit(self, fetcher: RepositoryFetcher) -> Admitted:
        """Brings the home up to date.

        If nothing is new, nothing is written.

        Raises:
            RuleViolation: If root, timestamp, snapshot or targets was refused; the home believes
                what it believed before, but keeps every root that verified (rule T2).
        """
        if not fetcher.has_news and (standing := self._standing()) is not None:
            return standing
        try:
            return self._admit(fetcher, self.generations.current())
        except RuleViolation as first:
            if first.reason not in _TRIED_AGAIN:
                self._remember_refusal(first)
                raise
        try:
            # Once more, from nothing. A key may have been replaced between two reads (rule T7); or
            # an earlier snapshot listed versions or roles that were never there, and the stock
            # client goes by its copy of it, where only marks count (rule T3).
            return self._admit(fetcher, None)
        except RuleViolation as error:
            self._remember_refusal(error)
            raise

    def _standing(self) -> Admitted | None:
        """What is believed, if all of it is whole, unexpired and without problems."""
        if self.store.problems():
            return None
        believed = self.believed()
        expiry_t = self.moment(self.store.load()).time.expiry_t
        if believed is None or believed.problems:
            return None
        if any(file.expires <= expiry_t for file in believed.roles.values()):
            return None
        return believed

    def _remember_refusal(self, error: RuleViolation) -> None:
        memory = self.store.load()
        self.store.save(memory, {"": Problem.of(error)}, step=self.step)

    def _admit(self, fetcher: RepositoryFetcher, base: Generation | None) -> Admitted:
        previous = self.believed()
        memory = self.store.load()
        scratch = self.generations.begin(base)
        try:
            files, refused = self._update(scratch, fetcher, previous)
            admission = Admission(self.namespace, memory, self.moment(memory), previous)
            admitted = admission.judge(files, refused, self.artifacts)
            _write_admitted(scratch, admitted)
            self.step("admission:marks")
            self.store.save(admission.memory, admitted.problems, step=self.step)
            self.generations.publish(scratch, step=self.step)
            return admitted
        finally:
            self.generations.discard(scratch)

    def _update(
        self, scratch: Generation, fetcher: RepositoryFetcher, previous: Admitted | None
    ) -> tuple[SignedFiles, dict[str, Problem]]:
        """Runs the stock client in the scratch copy, role by role."""
        refused: dict[str, Problem] = {}
        try:
            updater = Updater(
                metadata_dir=str(scratch.metadata),
                metadata_base_url=f"{BASE_URL}metadata/",
                target_base_url=f"{BASE_URL}targets/",
                fetcher=fetcher,
                config=UpdaterConfig(max_root_rotations=256, prefix_targets_with_hash=True),
                bootstrap=self._root().data,
            )
            updater.refresh()
        except (RepositoryError, DownloadError, ValueError) as error:
            refused[layout.TIMESTAMP] = problem_of(error, fetcher.last_role)
        self._keep_roots(scratch)
        if refused:
            return SignedFiles(scratch.role_files(), {}), refused
        targets = RoleFile.parse(layout.TARGETS, scratch.role_files()[layout.TARGETS])
        wanted = wanted_artifacts(targets.targets, self.artifacts)
        for role, path in _probes(wanted):
            try:
                updater.get_targetinfo(path)
            except (RepositoryError, DownloadError, ValueError) as error:
                refused[role] = problem_of(error, role)
        roles = scratch.role_files()
        documents = self._fetch_documents(roles, refused, wanted, fetcher, previous)
        return SignedFiles(roles, documents), refused

    def _fetch_documents(
        self,
        roles: Mapping[str, bytes],
        refused: dict[str, Problem],
        wanted: tuple[ArtifactName, ...],
        fetcher: RepositoryFetcher,
        previous: Admitted | None,
    ) -> dict[str, bytes]:
        """The documents that the verified role files list, from before or from the server."""
        found: dict[str, bytes] = {}
        for role in [name for name, _ in _probes(wanted) if name in roles and name not in refused]:
            try:
                file = RoleFile.parse(role, roles[role])
            except RuleViolation as error:
                refused[role] = problem_of(error, role)
                continue
            for path, target in file.targets.targets.items():
                try:
                    digest = metadata.check_target(role, path, target)
                    place = layout.parse_document_path(path)
                    if place.version is not None or place.artifact not in wanted:
                        continue
                    most = min(target.length, metadata.document_model(path).max_bytes)
                    known = previous.documents.get(path) if previous else None
                    if known is None or metadata.sha256_digest(known) != digest.raw:
                        hashed = layout.hashed_document_path(path, digest)
                        known = fetcher.read(f"targets/{hashed}", most)
                    found[path] = known
                except (RuleViolation, ValueError, DownloadError) as error:
                    refused[role] = problem_of(error, role)
                    break  # the rest of a role that is refused need not be asked for
        return found

    def _keep_roots(self, scratch: Generation) -> None:
        """T2: a root chain that verified is kept at once, whatever fails after it."""
        newest = self._root()
        for version, data in scratch.root_history():
            if version <= newest.version:
                continue
            following = RoleFile.parse(layout.ROOT, data)
            metadata.check_signed(newest.root, following)
            metadata.check_signed(following.root, following)
            metadata.check_root(following, self.namespace)
            self.step("admission:root")
            write_atomically(self.root_file, data, step=self.step)
            newest = following


def _probes(wanted: tuple[ArtifactName, ...]) -> list[tuple[str, str]]:
    """Each delegated role, with a path whose look-up makes the stock client load it."""
    probes = []
    any_artifact = wanted[0] if wanted else ArtifactName("none")
    probes.append((layout.STOP, f"_stop/{any_artifact}.json"))
    probes.append((layout.HOLD, f"_hold/{any_artifact}/stable.json"))
    for artifact in wanted:
        for role in layout.artifact_roles(artifact):
            probes.append((str(role), f"{artifact}/{role.role_class}/0.json"))
    return probes


def _write_admitted(scratch: Generation, admitted: Admitted) -> None:
    """Leaves in the scratch generation exactly what was admitted."""
    with writing(scratch.folder):
        for role in scratch.role_files():
            if role not in admitted.roles:
                (scratch.metadata / f"{role}.json").unlink()
        for role, file in admitted.roles.items():
            path = scratch.metadata / f"{role}.json"
            if role != layout.ROOT and read_or_none(path) != file.data:
                path.write_bytes(file.data)
        stale = set(scratch.document_files()) - set(admitted.documents)
        for name in stale:
            (scratch.documents / name).unlink()
        for name, data in admitted.documents.items():
            path = scratch.documents / name
            make_folder(path.parent)
            path.write_bytes(data)


def problem_of(error: Exception, role: str) -> Problem:
    """What an error of the stock client means. Its own texts are not for people."""
    if isinstance(error, RuleViolation):
        return Problem.of(error, role)
    what = role or "the repository"
    if isinstance(error, DownloadHTTPError):
        return Problem(role, Reason.MISSING, f"{what}: {Reason.MISSING.text}", "T7")
    if isinstance(error, DownloadError) and type(error) is DownloadError:
        return Problem(role, Reason.UNREACHABLE, f"{what}: {error}")
    reason, rule = next(
        ((reason, rule) for kind, reason, rule in _MEANING if isinstance(error, kind)),
        (Reason.MALFORMED, "TUF"),
    )
    return Problem(role, reason, f"{what}: {reason.text}", rule)


_MEANING: list[tuple[type[Exception], Reason, str]] = [
    (UnsignedMetadataError, Reason.BAD_SIGNATURE, "TUF 5.3.4, 5.4.2, 5.5.3, 5.6.3"),
    (ExpiredMetadataError, Reason.EXPIRED, "TUF 5.3.10, 5.4.4, 5.5.6, 5.6.5"),
    (BadVersionNumberError, Reason.ROLLED_BACK, "TUF 5.3.5, 5.4.3, 5.5.4, 5.6.4"),
    (LengthOrHashMismatchError, Reason.HASH_MISMATCH, "TUF 5.5.2, 5.6.2"),
    (DownloadLengthMismatchError, Reason.TOO_LARGE, "T6"),
    (SlowRetrievalError, Reason.TOO_SLOW, "T6"),
]
"""What the stock client's errors mean, with the section of the TUF specification."""

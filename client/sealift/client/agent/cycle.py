"""The whole cycle of an update: poll, admit, decide, fetch, check, activate, report.

Each artifact goes its own way: what fails for one leaves the others alone, and what is installed
stays. Locks are held for moments, never across the network; what was decided before a transfer is
decided again before activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sealift.client.agent.decisions import Judgement, judge, revocations
from sealift.client.agent.home import DeviceHome
from sealift.client.agent.state import DeviceState, JoinedNamespace
from sealift.client.connection import Connection, with_address
from sealift.client.store.store import Store
from sealift.client.transfer.fetching import fetch_release
from sealift.client.transfer.server import server_sources
from sealift.client.trust.admission import Admitted, Moment
from sealift.client.trust.fetcher import RepositorySource
from sealift.client.trust.session import NamespaceTrust
from sealift.host import rpc
from sealift.host.active import ActivePointer, ActiveRelease, ReleaseId
from sealift.host.console import reason_of
from sealift.host.hashing import Advance
from sealift.host.rpc import ServerRefused
from sealift.protocol import layout, metadata
from sealift.protocol.documents import Manifest, ReleasePointer
from sealift.protocol.errors import RuleViolation, SealiftError
from sealift.protocol.names import ArtifactId, Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.protocol.rollout import Action
from sealift.v1 import fleet_pb2, fleet_pb2_grpc

Connect = Callable[[Namespace, JoinedNamespace], AbstractContextManager[Connection]]
StartProgress = Callable[[str, int], AbstractContextManager[Advance]]


class Draining(SealiftError):
    """The agent was asked to stop; a transfer goes on where it was the next time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one artifact.

    Attributes:
        artifact: Which.
        judgement: The last decision; None if there was nothing to decide on.
        before: What was active before.
        after: What is active now.
        error: Why it failed; a reasoned `no` is no failure.
    """

    artifact: ArtifactId
    judgement: Judgement | None
    before: ActiveRelease | None
    after: ActiveRelease | None
    error: SealiftError | None = None

    @property
    def changed(self) -> bool:
        """True if another release is active than before."""
        return (self.after and self.after.active.digest) != (
            self.before and self.before.active.digest
        )


@dataclass(frozen=True, slots=True)
class Cycle:
    """Brings a device up to date.

    Attributes:
        home: The device's home.
        connect: Opens a connection to a namespace's server.
        progress: Shows how far a transfer is.
        check_only: Say what would happen; nothing is fetched or activated.
        retry: Forget that an offered release was left before.
    """

    home: DeviceHome
    connect: Connect
    progress: StartProgress
    check_only: bool = False
    retry: bool = False
    _refusals: dict[Namespace, SealiftError] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The device's releases."""
        return Store(self.home.store_folder, self.home.step)

    def run(self, only: ArtifactId | None = None) -> list[Outcome]:
        """Runs the cycle for everything that is followed or pinned, or for one artifact."""
        artifacts = self.home.state().artifacts()
        if only is not None:
            artifacts = tuple(one for one in artifacts if one == only)
        outcomes: list[Outcome] = []
        for namespace in dict.fromkeys(one.namespace for one in artifacts):
            mine = [one for one in artifacts if one.namespace == namespace]
            outcomes.extend(self._run_namespace(namespace, mine))
        return outcomes

    def _run_namespace(
        self, namespace: Namespace, artifacts: list[ArtifactId]
    ) -> Iterator[Outcome]:
        joined = self.home.state().joined(namespace)
        with self.connect(namespace, joined) as connection:
            refusal = self._admit(connection, namespace)
            for artifact in artifacts:
                yield self._run_artifact(connection, artifact, refusal)
            if not self.check_only and refusal is None:
                self._report(connection, namespace, artifacts)

    def _trust(self, namespace: Namespace) -> NamespaceTrust:
        return self.home.trust(namespace, self.home.state())

    def _admit(self, connection: Connection, namespace: Namespace) -> SealiftError | None:
        """Admits what is new; a refusal is returned, as what is believed is still there."""
        try:
            admitted = connection.admit(self._trust(namespace))
        except SealiftError as refusal:
            error = refusal
            if isinstance(refusal, ServerRefused):
                error = with_address(refusal, connection.address)
            said = {"reason": reason_of(error), "message": error.message}
            self.home.record("refused", namespace=namespace, **said)
            return error
        self._remember_revoked(admitted, namespace)
        for role, problem in admitted.problems.items():
            self.home.record(
                "refused",
                namespace=namespace,
                role=role,
                reason=problem.reason.value,
                message=problem.message,
            )
        return None

    def _remember_revoked(self, admitted: Admitted, namespace: Namespace) -> None:
        """Apps read no signed files: what is revoked is written where they look."""
        state = self.home.state()
        mine = [one for one in state.artifacts() if one.namespace == namespace]
        new = tuple(
            digest
            for artifact in mine
            for digest, severity in revocations(admitted, artifact).items()
            if severity.forbids_activation and digest not in state.revoked
        )
        if new:
            self.home.change(
                "revocations",
                lambda now: now.model_copy(
                    update={"revoked": tuple(dict.fromkeys((*now.revoked, *new)))}
                ),
            )

    # --- one artifact -----------------------------------------------------------------------

    def _run_artifact(
        self, connection: Connection, artifact: ArtifactId, refusal: SealiftError | None
    ) -> Outcome:
        before = self._active(artifact)
        try:
            if self.retry:
                self._forgive(artifact)
            judgement = self._judge(artifact)
            if not self.check_only:
                self._carry_out(connection, artifact, judgement)
                judgement = self._judge(artifact)
        except Draining:
            raise
        except SealiftError as raised:
            error = raised
            if isinstance(raised, ServerRefused):
                error = with_address(raised, connection.address)
            self.home.record("failed", artifact=str(artifact), message=error.message)
            return Outcome(artifact, None, before, self._active(artifact), error)
        failure = refusal or _violation(judgement)
        return Outcome(artifact, judgement, before, self._active(artifact), failure)

    def _active(self, artifact: ArtifactId) -> ActiveRelease | None:
        return ActivePointer.load(self.home.pointer_file).get(artifact)

    def _judge(self, artifact: ArtifactId) -> Judgement:
        return judge_artifact(self.home, artifact)

    def _forgive(self, artifact: ArtifactId) -> None:
        channel = self._judge(artifact).channel
        if channel is not None and channel.release is not None:
            digest = channel.release.sha256
            self.home.change("retry", lambda state: state.without_denied(digest))

    def _carry_out(
        self, connection: Connection, artifact: ArtifactId, judgement: Judgement
    ) -> None:
        decision = judgement.decision
        release = decision.release
        if release is None:
            return
        if decision.action is Action.KEEP:
            self._mend_active(connection, artifact)
            return
        if not self.store.is_whole(release.sha256):
            self._fetch(connection, artifact, release)
        self._refresh_if_old(connection, artifact)
        self._activate(artifact, release)

    def _mend_active(self, connection: Connection, artifact: ArtifactId) -> None:
        """What is active but no longer whole on the disk is fetched again."""
        active = self._active(artifact)
        if active is None or self.store.is_whole(active.active.digest):
            return
        admitted = self._trust(artifact.namespace).believed()
        listed = admitted.releases(artifact.artifact) if admitted else {}
        found = listed.get(active.active.version)
        if found is not None and found[0] == active.active.digest:
            pointer = ReleasePointer(
                version=active.active.version, sha256=found[0], length=found[1]
            )
            self._fetch(connection, artifact, pointer)

    def _fetch(self, connection: Connection, artifact: ArtifactId, release: ReleasePointer) -> None:
        manifest, data = self._manifest(connection.source, artifact, release)
        self.home.step("update:manifest")
        label = f"{artifact}@{release.version}"
        with (
            self.progress(label, manifest.length) as advance,
            server_sources(
                connection.channel,
                connection.address,
                artifact.namespace,
                connection.token,
                ca=connection.ca,
            ) as sources,
        ):
            fetch_release(
                manifest, release.sha256, data, self.store, sources, advance, self.home.step
            )
        self.home.record(
            "fetched", artifact=str(artifact), version=str(release.version), digest=release.sha256
        )

    def _manifest(
        self, source: RepositorySource, artifact: ArtifactId, release: ReleasePointer
    ) -> tuple[Manifest, bytes]:
        """T11: path, manifest and pointer agree on artifact, version and digest."""
        admitted = self._trust(artifact.namespace).believed()
        path = layout.release_path(artifact.artifact, release.version)
        role = layout.role_name(artifact.artifact, layout.RoleClass.RELEASES)
        file = admitted.roles.get(role) if admitted else None
        target = file.targets.targets.get(path) if file else None
        if (
            target is None
            or target.length != release.length
            or metadata.check_target(role, path, target) != release.sha256
        ):
            raise RuleViolation(
                "T11",
                Reason.WRONG_PLACE,
                f"{role} does not list {artifact}@{release.version} with the digest "
                f"{release.sha256.short}… that the channel names",
                role=role,
            )
        hashed = layout.hashed_document_path(path, release.sha256)
        data = source.read(artifact.namespace, f"targets/{hashed}", target.length)
        metadata.check_document_bytes(role, path, target, data)
        return metadata.parse_placed_document(Manifest, artifact.namespace, path, data), data

    def _refresh_if_old(self, connection: Connection, artifact: ArtifactId) -> None:
        """T18: after a long transfer, ask again whether anything is held."""
        if Reason.HOLD_TOO_OLD in self._judge(artifact).decision.reasons:
            self._admit(connection, artifact.namespace)

    def _activate(self, artifact: ArtifactId, wanted: ReleasePointer) -> None:
        """Decides once more, under the lock, and moves the pointer."""
        with self.home.locked("activation"):
            judgement = self._judge(artifact)
            decision = judgement.decision
            if decision.action is Action.KEEP or decision.release != wanted:
                return
            self.store.read(wanted.sha256)
            pointer = ActivePointer.load(self.home.pointer_file)
            left_good = decision.action is Action.ACTIVATE and not _left_for_bad(
                judgement, pointer.get(artifact)
            )
            after = pointer.with_active(
                artifact,
                ReleaseId(version=wanted.version, digest=wanted.sha256),
                keep_last_good=left_good,
                now=self.home.clock.wall(),
            )
            self.home.step("activate:pointer")
            after.save(self.home.pointer_file, step=self.home.step)
        self.home.record(
            "activated",
            artifact=str(artifact),
            version=str(wanted.version),
            digest=wanted.sha256,
            reason=decision.reasons[0].value,
        )
        self._collect()

    def _collect(self) -> None:
        """Removes what is neither active, last good nor pinned, unless an app uses it."""
        collect(self.home, self.store)

    # --- reporting --------------------------------------------------------------------------

    def _report(
        self, connection: Connection, namespace: Namespace, artifacts: list[ArtifactId]
    ) -> None:
        """Tells the server what runs. It decides nothing, so a failure changes nothing."""
        reports = []
        for artifact in artifacts:
            judgement, active = self._judge(artifact), self._active(artifact)
            reports.append(
                fleet_pb2.ArtifactReport(
                    artifact=artifact.artifact,
                    channel=judgement.channel_name or "",
                    version=str(active.active.version) if active else "",
                    digest=active.active.digest if active else "",
                    reason=judgement.decision.reasons[0].value,
                )
            )
        stub = fleet_pb2_grpc.FleetServiceStub(connection.channel)
        request = fleet_pb2.ReportRequest(namespace=namespace, artifacts=reports)
        try:
            rpc.within(stub.Report, request, token=connection.token)
        except ServerRefused as error:
            self.home.record("unreported", namespace=namespace, message=error.message)


def judge_artifact(home: DeviceHome, artifact: ArtifactId, *, at: int | None = None) -> Judgement:
    """Decides about an artifact from what the home believes, without the network."""
    state = home.state()
    joined = state.joined(artifact.namespace)
    trust = home.trust(artifact.namespace, state)
    active = ActivePointer.load(home.pointer_file).get(artifact)
    moment: Moment = trust.moment(joined.memory)
    return judge(
        home,
        state,
        trust.believed(),
        moment,
        artifact,
        active=active.active.digest if active else None,
        at=at,
    )


def _violation(judgement: Judgement) -> RuleViolation | None:
    problem = judgement.problem
    if problem is None:
        return None
    return RuleViolation(problem.rule, problem.reason, problem.message, role=problem.role)


def _left_for_bad(judgement: Judgement, active: ActiveRelease | None) -> bool:
    """True if the active release is left because it was bad, so that it is no last good.

    A move to a lower version without stages and fallback is a rollback.
    """
    channel = judgement.channel
    if active is None or channel is None or channel.release is None:
        return False
    revoked = judgement.facts.revoked.get(active.active.digest)
    rolled_back = (
        channel.fallback is None
        and not channel.rollout.stages
        and channel.release.version < active.active.version
    )
    return rolled_back or (revoked is not None and revoked.forbids_activation)


def undo(home: DeviceHome, artifact: ArtifactId) -> tuple[ActiveRelease, ActiveRelease]:
    """Goes back to the last good release; the one that is left is denylisted.

    Returns:
        What was active, and what is.

    Raises:
        NoLastGood: If there is nothing to go back to.
        StoreError: If it is not complete on the disk.
        SealiftError: If it was revoked.
    """
    store = Store(home.store_folder, home.step)
    with home.locked("undo"):
        pointer = ActivePointer.load(home.pointer_file)
        after = pointer.with_undone(artifact, now=home.clock.wall())
        left, entered = pointer.artifacts[artifact], after.artifacts[artifact]
        state = home.state()
        if entered.active.digest in state.revoked:
            raise SealiftError(
                f"the last good {artifact}@{entered.active.version} was revoked",
                hint="Pin another release: sealift pin ARTIFACT@VERSION",
            )
        store.require_whole(entered.active.digest)

        def deny(now: DeviceState) -> DeviceState:
            return now.with_denied(left.active.digest).with_pin(artifact, None)

        home.change("undo", deny, locked=True)
        home.step("undo:denied")
        after.save(home.pointer_file, step=home.step)
    home.record(
        "undone",
        artifact=str(artifact),
        version=str(entered.active.version),
        left=str(left.active.version),
    )
    return left, entered


def collect(home: DeviceHome, store: Store) -> list[Digest]:
    """Removes releases that nothing needs any more.

    Kept are those that are active, last good, pinned, decided for but not yet activated, or named
    as a fallback; and whatever an app uses.
    """
    with home.locked("collection"):
        state = home.state()
        wanted = set(ActivePointer.load(home.pointer_file).digests())
        wanted |= {pin.release.sha256 for pin in state.pins.values()}
        for artifact in state.artifacts():
            judgement = judge_artifact(home, artifact)
            pointers = [judgement.decision.release]
            if judgement.channel is not None:
                pointers.append(judgement.channel.fallback)
            wanted |= {pointer.sha256 for pointer in pointers if pointer is not None}
        return store.collect(wanted)

"""Who plays: a server, a publisher, three mail gateways, and an intruder."""

from __future__ import annotations

import json
import re
import secrets
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo.commands import COMMAND_S, Actor, StoryBroken, environment, together, wait_until
from deploy.demo.stage import Stage

from sealift.host.active import ActivePointer, ReleaseId
from sealift.host.homes import active_file, device_folder
from sealift.protocol.names import ArtifactId, ArtifactName, Namespace

NAMESPACE = Namespace("acme")
MODEL = ArtifactId(NAMESPACE, ArtifactName("file-types"))
PROMPTS = ArtifactId(NAMESPACE, ArtifactName("triage-prompts"))
GATEWAY_APP = "gateway.py"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gateway said of a file."""

    file: str
    kind: str
    score: float
    verdict: str
    model: str
    prompts: str
    prompt: str

    def __str__(self) -> str:
        return (
            f"{self.file:<12} {self.kind:<7} {self.score:.2f}  {self.verdict:<12}"
            f"(model {self.model}, prompts {self.prompts})"
        )


@dataclass(frozen=True, slots=True)
class Gateway(Actor):
    """A mail gateway: a device of its own, and the app on it."""

    def active(self, artifact: ArtifactId) -> ReleaseId | None:
        """What is active, read where every app reads it."""
        entry = ActivePointer.load(active_file(self.home)).get(artifact)
        return entry.active if entry else None

    def version(self, artifact: ArtifactId) -> str:
        """The active version."""
        active = self.active(artifact)
        return str(active.version) if active else "nothing"

    def secret(self) -> bytes:
        """The 32 bytes that its tickets are made of; read here only to check its answers."""
        path = device_folder(self.home) / "identity" / "secret"
        return bytes.fromhex(json.loads(path.read_text())["secret"])

    def classify(self, files: Sequence[str], *, shown: bool = True) -> list[Verdict]:
        """Runs the app on files."""
        words = ("python", GATEWAY_APP, *(f"mail/{name}" for name in files))
        ran = self.quietly(*words)
        verdicts = [Verdict(**json.loads(line)) for line in ran.out.splitlines()]
        if shown:
            self.stage.command(self.name, ran.line)
            self.stage.output("\n".join(map(str, verdicts)))
        return verdicts


@dataclass(slots=True)
class Server:
    """The server: one process, started and stopped on the same port."""

    actor: Actor
    _process: subprocess.Popen[bytes] | None = None
    _listen: str = "127.0.0.1:0"
    _http: str = "127.0.0.1:0"
    _draining: bool = False

    @property
    def home(self) -> Path:
        """Its home."""
        return self.actor.home

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._listen

    def command(self) -> tuple[str, ...]:
        """How it is started."""
        options = ("--listen", self._listen, "--http", self._http)
        return ("sealift-server", "run", "--dev", "--home", self.actor.name, *options)

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        self.actor.stage.command("server", " ".join(self.command()))
        ready = self.home / "address.json"
        ready.unlink(missing_ok=True)
        log = self.actor.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                Actor.command(self.command()),
                cwd=self.actor.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process = self._process

        def is_ready() -> bool:
            if process.poll() is not None:
                raise StoryBroken(f"the server ended:\n{log.read_text()[-2000:]}")
            return ready.exists() and (self.home / "admin.token").exists()

        seconds = wait_until("the server", is_ready)
        said = json.loads(ready.read_text())
        self._listen, self._http = said["grpc"], said["http"]
        self.actor.stage.output(f"ready on {self._listen} after {seconds:.1f} s")

    def drain(self) -> None:
        """Asks it to stop, as an operator does, and does not wait."""
        if self._process is not None and not self._draining:
            self._draining = True
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Asks it to stop, and waits until it has."""
        self.drain()
        process, self._process, self._draining = self._process, None, False
        if process is None:
            return
        try:
            process.wait(COMMAND_S / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(slots=True)
class Cast:
    """Everyone, in one folder."""

    stage: Stage
    folder: Path
    server: Server
    publisher: Actor
    gateways: list[Gateway]
    intruder: Actor
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def gather(cls, stage: Stage, folder: Path) -> Cast:
        """The cast of a folder; the publisher's passphrase lies beside the homes."""
        passphrase = secrets.token_urlsafe(16)
        (folder / "passphrase.txt").write_text(passphrase)
        return cls(
            stage,
            folder,
            Server(Actor("server", stage, folder)),
            Actor("publisher", stage, folder, {"SEALIFT_PASSPHRASE": passphrase}),
            [Gateway(f"gateway-{number}", stage, folder) for number in (1, 2, 3)],
            Actor("intruder", stage, folder),
        )

    # --- all gateways at the same time -----------------------------------------------------

    def update_all(self, *, codes: Sequence[int] = (0,)) -> list[dict[str, Any]]:
        """Updates every gateway; what each says, with its exit code under `code`."""
        words = ("sealift", "update", "--output", "json")
        self.stage.command("gateway-1, 2, 3", " ".join(words))

        def update(gateway: Gateway) -> dict[str, Any]:
            ran = gateway.quietly(*words, codes=codes)
            return {**ran.document, "code": ran.code}

        said = together(self.gateways, update)
        self._show_each([[_outcome(one) for one in each["artifacts"]] for each in said])
        return said

    def _show_each(self, said: list[list[str]]) -> None:
        """What each gateway printed; once, if all printed the same."""
        if all(lines == said[0] for lines in said):
            self.stage.output("\n".join(said[0]), prefix="all three  ")
            return
        for gateway, lines in zip(self.gateways, said, strict=True):
            self.stage.output("\n".join(lines), prefix=f"{gateway.name}  ")

    def classify_all(self, files: Sequence[str]) -> list[list[Verdict]]:
        """Lets every gateway's app look at files."""
        line = " ".join(("python", GATEWAY_APP, *(f"mail/{name}" for name in files)))
        self.stage.command("gateway-1, 2, 3", line)
        said = together(self.gateways, lambda gateway: gateway.classify(files, shown=False))
        self._show_each([[str(verdict) for verdict in verdicts] for verdicts in said])
        return said

    def versions(self, artifact: ArtifactId) -> list[str]:
        """What is active on each gateway."""
        return [gateway.version(artifact) for gateway in self.gateways]

    # --- agents -----------------------------------------------------------------------------

    def start_agents(self) -> None:
        """From here on the gateways update by themselves."""
        words = ("sealift", "agent", "run", "--every", "1s")
        self.stage.command("gateway-1, 2, 3", f"{' '.join(words)} &")
        for gateway in self.gateways:
            with (self.folder / f"{gateway.name}.log").open("ab") as output:
                self.agents.append(
                    subprocess.Popen(
                        Actor.command(words),
                        cwd=self.folder,
                        env=environment(SEALIFT_HOME=gateway.name),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def stop_agents(self) -> list[int]:
        """Stops them as the system does; their exit codes."""
        for agent in self.agents:
            agent.send_signal(signal.SIGTERM)
        codes = [agent.wait(COMMAND_S) for agent in self.agents]
        self.agents.clear()
        return codes

    def leave(self) -> None:
        """Ends every process of the story."""
        for agent in self.agents:
            agent.kill()
            agent.wait()
        self.agents.clear()
        self.server.stop()


def shortened(text: str) -> str:
    """With hashes as people compare them."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", text)


def _outcome(said: dict[str, Any]) -> str:
    name = str(said["artifact"]).partition("/")[2]
    before = said["before"]["version"] if said["before"] else "nothing"
    active = said["active"]["version"] if said["active"] else "nothing"
    if "error" in said:
        return f"{name}: {active} stays; refused: {shortened(said['error']['message'])}"
    if said["changed"]:
        return f"{name}: {before} → {active}"
    reasons = said.get("decision", {}).get("reasons", [])
    return f"{name}: {active} stays ({', '.join(reasons)})"

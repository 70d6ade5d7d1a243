"""The five minutes of the README, taken from its page and run as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.ports import free_port
from support.processes import HomeCommands, begin, environment, joined, server_process

README = Path(__file__).resolve().parents[2] / "README.md"
HEADING = "## Five minutes by hand"
RUN = "sealift-server run --dev --home server &"
ADDRESS = "127.0.0.1:7443"


def walk_script() -> str:
    """The blocks of the walk as one script for `sh`; only the ports are others."""
    section = README.read_text().split(HEADING)[1].split("\n## ")[0]
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    script = ["set -eu"]
    for language, text in blocks:
        script.append(text if language == "sh" else f"python - <<'APP'\n{text}APP\n")
    joined_script = "\n".join(script)
    assert joined_script.count(RUN) == 1
    assert ADDRESS in joined_script
    address = f"127.0.0.1:{free_port()}"
    ports = f"--listen {address} --http 127.0.0.1:{free_port()}"
    return joined_script.replace(RUN, RUN.replace("&", f"{ports} &")).replace(ADDRESS, address)


def test_the_walk_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as out:
        process = subprocess.Popen(
            ["sh", "-c", walk_script()],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(120)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # the server that the walk leaves running
        out.seek(0)
        said = out.read()
    assert code == 0, said
    assert "1.0.0 Say hello to {name}, in one sentence." in said
    assert "every byte is what its publisher signed" in said
    assert "acme/greeter:stable: running → halted" in said
    assert re.search(r"ticket +\d+ of 10000|this release is already active", said)
    device = HomeCommands(tmp_path / "walk" / "device")
    (greeter,) = device.json("status")["device"]["artifacts"]
    assert greeter["active"] == "1.0.0"


def test_after_sigkill_the_server_goes_on_at_the_same_port(tmp_path: Path) -> None:
    release = tmp_path / "greeter"
    release.mkdir()
    (release / "prompt.txt").write_text("hello")
    with server_process(tmp_path / "server") as server:
        publisher = begin(server, tmp_path / "publisher", "acme")
        push = ("push", str(release), "greeter@1.0.0", "--kind", "prompt", "--to", "stable")
        publisher.run(*push)
        device = joined(publisher, tmp_path / "device", "greeter")
        address = server.grpc
        server.kill()
        refused = device.run("update", code=1)
        assert address in refused.err
        server.start()
        assert server.grpc == address
        device.run("update")
        folder = device.run("path", "acme/greeter").out.strip()
        assert (Path(folder) / "prompt.txt").read_text() == "hello"
        assert server.stop() == 0


@pytest.mark.parametrize("program", ["sealift", "sealift-server"])
def test_both_programs_answer_help(program: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage" in done.stdout

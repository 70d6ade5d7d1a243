"""The whole demo as it is run. It downloads the real models, so it is not among the quick tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.system
@pytest.mark.timeout(600)
def test_every_expectation_of_the_demo_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--cache", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    for number in range(1, 7):
        assert f"\n{number}  " in done.stdout

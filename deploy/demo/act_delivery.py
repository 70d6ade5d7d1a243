"""Acts 1 and 2: a release is signed and delivered; the next one is tried on one device."""

from __future__ import annotations

from deploy.demo import mail
from deploy.demo.cast import MODEL, PROMPTS, Cast
from deploy.demo.commands import together

USUAL = [name for name in mail.FILES if name != mail.SMALL_ZIP]
"""The mail of a usual day."""


def sign_and_deliver(cast: Cast) -> None:
    """Server, publisher, three devices: a command each."""
    cast.stage.act(
        "Sign and deliver",
        "A model that tells what a file is, and the prompts of a triage assistant, travel from "
        "their publisher to three mail gateways. The keys belong to the publisher; the server "
        "only keeps and hands out.",
    )
    cast.server.start()
    publisher = cast.publisher
    # fmt: off
    publisher.run(
        "sealift", "init", "acme", "--server", cast.server.address,
        "--token-file", "server/admin.token", "--recovery-kit", "safe/recovery-kit.txt",
    )
    # fmt: on
    _no_key_on_server(cast)
    push = ("sealift", "push")
    publisher.run(
        *push, "magika-3.2", f"{MODEL.artifact}@3.2.0", "--kind", "model", "--to", "stable"
    )
    publisher.run(
        *push,
        "prompts-0.203.1",
        f"{PROMPTS.artifact}@0.203.1",
        "--kind",
        "prompt",
        "--to",
        "stable",
    )
    follow = ("--follow", str(MODEL.artifact), "--follow", str(PROMPTS.artifact))
    invite = publisher.ask("sealift", "invite", *follow, "--uses", "3")
    (cast.folder / "join.txt").write_text(invite["join"])
    cast.stage.say(f"a join string for three devices, {len(invite['join'])} characters: a secret")
    _join(cast, invite["join"], invite["root_sha256"])
    cast.update_all()
    cast.stage.expect(
        cast.versions(MODEL) == ["3.2.0"] * 3,
        "all three run the model 3.2.0; each has verified every byte by itself",
    )
    verdicts = cast.gateways[0].classify(list(mail.FILES))
    right = [one for one in verdicts if one.kind == mail.FILES[one.file][0]]
    delivered = [one for one in right if one.verdict == "delivered"]
    cast.stage.expect(
        len(delivered) == len(mail.FILES),
        f"the model runs: {len(delivered)} of {len(mail.FILES)} files are recognised",
    )


def _no_key_on_server(cast: Cast) -> None:
    keys = sorted(path.name for path in (cast.server.home / "keys").rglob("*") if path.is_file())
    cast.stage.expect(
        keys == ["online"], f"the server holds no publisher's key, only its own: {', '.join(keys)}"
    )


def _join(cast: Cast, join: str, root: str) -> None:
    cast.stage.command("gateway-1, 2, 3", "sealift join - < join.txt")
    ran = together(
        cast.gateways, lambda gateway: gateway.quietly("sealift", "join", "-", stdin=join)
    )
    cast.stage.output(ran[0].out)
    cast.stage.expect(
        all(root in one.out for one in ran), "each saw the publisher's root, not the server's word"
    )


def preview(cast: Cast) -> None:
    """The next model on one device."""
    stage, publisher = cast.stage, cast.publisher
    stage.act(
        "Preview",
        "Model 3.3 is out. It is pushed once, and opened on a preview channel that one gateway "
        "follows for a while. The others do not notice.",
    )
    publisher.run("sealift", "push", "magika-3.3", f"{MODEL.artifact}@3.3.0")
    publisher.run("sealift", "promote", f"{MODEL.artifact}@3.3.0", "--to", "preview")
    first = cast.gateways[0]
    first.run("sealift", "follow", f"{MODEL}:preview")
    cast.update_all()
    stage.expect(
        cast.versions(MODEL) == ["3.3.0", "3.2.0", "3.2.0"],
        "one gateway previews 3.3, two keep 3.2",
    )
    verdicts = first.classify(USUAL)
    stage.expect(
        all(one.verdict == "delivered" for one in verdicts),
        "with the usual mail 3.3 is as good as 3.2: nothing speaks against it",
    )
    first.run("sealift", "follow", f"{MODEL}:stable")
    first.run("sealift", "update")
    stage.expect(first.version(MODEL) == "3.2.0", "back on stable, it runs what stable says")

"""For apps: the models and prompts that this device has verified and activated.

    from sealift import app

    with app.use("acme/llama-edge", ">=1.4,<2") as release:
        model = load(release.path("model.gguf"))

`use` claims a release until the block ends, so that it stays on the disk; `async with` does the
same. It needs no agent and no right to write, and imports neither gRPC nor TUF.

Every error is a `sealift.protocol.errors.SealiftError`, which says what to do; these are likely:

    AppError
    ├── NoMatchingRelease        nothing installed is what the app asked for
    └── NoSuchFile               the release has no file of that name
    InvalidName                  a reference or range that cannot be one; also a `ValueError`
"""

from sealift.app.errors import AppError, NoMatchingRelease, NoSuchFile
from sealift.app.release import Release
from sealift.app.using import Use, use
from sealift.protocol.errors import InvalidName

__all__ = [
    "AppError",
    "InvalidName",
    "NoMatchingRelease",
    "NoSuchFile",
    "Release",
    "Use",
    "use",
]

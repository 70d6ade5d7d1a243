"""Files of a release: the same bytes as a blob under an ordinary name, without a second copy."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from pathlib import Path

_FICLONE = 0x40049409
"""ioctl(2): both files share their blocks until one is written (btrfs, XFS)."""
_NO_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS}
FILE_MODE = 0o444
FOLDER_MODE = 0o755


def place(blob: Path, target: Path) -> None:
    """Puts a blob's bytes at `target`, read-only and durable: a hard link where possible, else
    shared blocks, else a copy. The name is durable when its folder is synced.

    Raises:
        OSError: If that fails; nothing is left at `target` then.
    """
    try:
        os.link(blob, target)
        return
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
    try:
        copy(blob, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def copy(blob: Path, target: Path) -> None:
    """Copies a blob, sharing its blocks where the file system can, and syncs the copy."""
    with blob.open("rb", buffering=0) as source, target.open("xb", buffering=0) as copied:
        if not _clone(source.fileno(), copied.fileno()):
            shutil.copyfileobj(source, copied, 1024 * 1024)
        os.fchmod(copied.fileno(), FILE_MODE)
        os.fsync(copied.fileno())


def _clone(source: int, target: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True

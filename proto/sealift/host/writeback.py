"""Asks the kernel to write bytes to the disk now, without waiting for it.

A download that lets dirty pages pile up waits for all of them at its end. This is speed only:
nothing counts as durable before `fsync`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).sync_file_range
    except AttributeError:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function


_SYNC = _sync_file_range()


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Begins to write `length` bytes from `offset` of an open file to its disk.

    Does nothing where the system cannot; an error shows at the next `fsync`.
    """
    if _SYNC is not None:
        _SYNC(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


def sync_data(descriptor: int) -> None:
    """Makes a file's bytes durable, and as much about it as is needed to read them back."""
    if sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)

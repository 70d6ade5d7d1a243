"""Files as they come attached to mail; the same bytes in every run."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

SMALL_ZIP = "notes.zip"
"""One stored, uncompressed member of 1,200 bytes: the file that model 3.3 no longer recognises."""


def _zip(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo("a.txt")  # with a fixed date
        entry.compress_type = method
        archive.writestr(entry, b"hello " * 200)
    return file.getvalue()


def _png() -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(range(65)) * 64)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


def _python() -> bytes:
    function = (
        'def f{i}(a, b=None):\n    """Return a."""\n    if b is None:\n'
        "        return [x for x in a if x]\n    return os.path.join(a, b)\n\n"
    )
    text = "import os\nimport sys\n\n" + "".join(function.format(i=i) for i in range(30))
    return text.encode()


def _orders() -> bytes:
    items = [{"id": i, "name": f"n{i}", "ok": True, "v": i / 7} for i in range(40)]
    return json.dumps({"items": items}, indent=2).encode()


FILES = {
    "report.py": ("python", _python),
    "orders.json": ("json", _orders),
    "scan.png": ("png", _png),
    "archive.zip": ("zip", lambda: _zip(zipfile.ZIP_DEFLATED)),
    SMALL_ZIP: ("zip", lambda: _zip(zipfile.ZIP_STORED)),
}
"""What each file is, and how it is made."""


def write_mail(folder: Path) -> list[Path]:
    """Writes the files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, make) in FILES.items():
        (folder / name).write_bytes(make())
    return [folder / name for name in FILES]

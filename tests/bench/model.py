"""A large model made from a seed: a valid safetensors file of bf16 tensors, without numpy."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

ROWS, COLUMNS = 2048, 4096
TENSOR_BYTES = 2 * ROWS * COLUMNS
LABEL_DIGITS = 8
_LABEL_OFFSET = 8 + len('{"__metadata__":{"label":"')


def make_model(path: Path, mib: int, seed: int = 1) -> None:
    """Writes a model of some `mib` MiB, unless the same one is there already."""
    count = max(mib * 1024 * 1024 // TENSOR_BYTES, 1)
    header = _header(count)
    length = 8 + len(header) + count * TENSOR_BYTES
    if path.exists() and path.stat().st_size == length:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in range(count):
            file.write(source.randbytes(TENSOR_BYTES))


def _header(count: int) -> bytes:
    tensors: dict[str, object] = {"__metadata__": {"label": "0" * LABEL_DIGITS}}
    for number in range(count):
        start = number * TENSOR_BYTES
        tensors[f"model.layers.{number}.weight"] = {
            "dtype": "BF16",
            "shape": [ROWS, COLUMNS],
            "data_offsets": [start, start + TENSOR_BYTES],
        }
    header = json.dumps(tensors, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def relabel(path: Path, label: int) -> None:
    """Makes it another model, of which no store has the bytes, by a label in its header."""
    with path.open("r+b") as file:
        file.seek(_LABEL_OFFSET)
        file.write(str(label).rjust(LABEL_DIGITS, "0").encode())

"""Bytes to documents and back: one spelling out, a strict reading in.

Signed documents are verified as bytes and parsed afterwards; nothing that was parsed is ever
written again in its place.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sealift.protocol.errors import InvalidDocument

MAX_DEPTH = 32
MAX_INTEGER = 2**53
"""Exclusive: the integers that every JSON reader keeps exactly (RFC 8259 section 6)."""
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024

M = TypeVar("M", bound=BaseModel)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidDocument(f"the key {twice!r} stands twice in one object")
    return result


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= MAX_INTEGER:
        raise InvalidDocument(f"the integer {text[:24]} is not below 2^53")
    return int(text)


def _no_float(text: str) -> float:
    raise InvalidDocument(f"the number {text[:24]} is not an integer; write decimals as strings")


def _check_tree(value: Any, depth: int = 1) -> None:
    if depth > MAX_DEPTH:
        raise InvalidDocument(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_tree(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_tree(item, depth + 1)


def _check_text(text: str) -> None:
    if not text.isascii() and any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise InvalidDocument("a string has half of a surrogate pair")


def parse_json(data: bytes) -> Any:
    """Reads JSON strictly.

    Refused are duplicate keys, floats, NaN, integers of 2^53 and more, nesting deeper than 32,
    lone surrogates, anything but UTF-8.

    Raises:
        InvalidDocument: If the bytes are anything but that.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidDocument(f"{len(data)} bytes are more than {MAX_DOCUMENT_BYTES}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_int=_integer,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except UnicodeDecodeError as error:
        raise InvalidDocument("not UTF-8") from error
    except RecursionError as error:
        raise InvalidDocument(f"nested deeper than {MAX_DEPTH}") from error
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"not JSON: {error}") from error
    _check_tree(value)
    return value


def parse_document(model: type[M], data: bytes) -> M:
    """Reads a document of the given type from its exact bytes.

    Raises:
        InvalidDocument: If the bytes are not strict JSON or not such a document.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise InvalidDocument("not a JSON object")
    try:
        return model.model_validate_json(data, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidDocument(f"{where}: {first['msg']}") from error


def encode_json(value: Any) -> bytes:
    """Writes sorted-key UTF-8 JSON without spaces."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def encode_document(document: BaseModel) -> bytes:
    """The document's bytes, the same for the same content. Fields that are None are left out."""
    return encode_json(document.model_dump(mode="json", exclude_none=True, by_alias=True))

"""Redaction of secrets in log lines, by the name of their field and by the form of their value."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import lru_cache
from types import NoneType
from typing import Final
from uuid import UUID

REDACTED: Final = "[redacted]"

_NAMES: Final = r"passwd|password|secret|token|authorization|cookie|api[-_]?key|private[-_]?key|pepper|credential"
_SECRET_NAME: Final = re.compile(_NAMES, re.IGNORECASE)
# Names that match the pattern although their values are no secrets, and useful.
_HARMLESS: Final = frozenset({"token_type", "token_delivery"})
_PLAIN: Final = frozenset({str, int, float, bool, NoneType})
# A value nested deeper than this is logged as its repr, because it may contain itself.
_MAX_DEPTH: Final = 8

# The beginning of a value, and the pattern of the whole. The patterns run over encoded lines. They match no character
# that JSON escapes, so they also find values inside JSON strings. None starts with a word boundary, which is missing
# after an escaped newline (`\n`). No pattern backtracks over long text. Searching for the beginnings first is cheap,
# and most lines contain none of them.
_SECRET_VALUES: Final = tuple(
    (beginning, re.compile(pattern))
    for beginning, pattern in (
        (b"eyJ", rb"eyJ[\w-]{8,}+(?:\.[\w-]*+){0,2}"),  # a JSON Web Token, complete or cut off
        (b"rt1.", rb"rt1\.[\w-]{22}\.[\w-]{43}"),  # a refresh token
        (b"ev1.", rb"ev1\.[\w-]{22}\.[\w-]{43}"),  # the token in a mailed link
        (b"dv2.", rb"dv2\.[0-9a-f]{32}\.\d{1,9}\.\d{1,12}\.[\w-]{22}\.[0-9a-f]{32}"),  # a device mark
        (b"://", rb"(?<=://)[^\s\"/:@]*:[^\s\"/]*(?=@)"),  # the user and password of a URL
        (b"Bearer ", rb"(?<=Bearer )[\w.~+/-]{8,}=*"),  # an Authorization header (RFC 6750)
        (b"Basic ", rb"(?<=Basic )[\w+/]{8,}=*"),  # an Authorization header (RFC 7617)
    )
)
# A secret together with its name in a text: `password=x`, `token: x`, `{'api_key': 'x'}` or `{"secret": "x"}`. Quotes
# in a text are escaped in the line and a colon is followed by a space, so the line's own fields never match.
_NAMED_VALUE: Final = re.compile(
    rb"((?:%b)[\w-]{0,32}+(?:\\?['\"])?(?:=|:\s)\s?)(?:'[^'\\\"]*+|\\\"[^\\\"]*+|[^\s\"'\\&,;)}\]]++)"
    % _NAMES.encode(),
    re.IGNORECASE,
)
_BETWEEN: Final = (b"=", b": ")


def redacted(value: object) -> str:
    """Return a value as one line of JSON in ASCII, with secrets replaced as in a log line.

    For texts that are stored or shown to operators; times and UUIDs are written as usual in JSON, and other values that
    JSON does not know as their repr.
    """
    try:
        line = json.dumps(_redact({"": value}, 0), default=_as_text, separators=(",", ":"))
    except Exception:  # noqa: BLE001 -- values refer to themselves, have keys that are no texts, or a repr that fails
        line = json.dumps({"": f"a {type(value).__name__} that cannot be shown"}, separators=(",", ":"))
    line = line.replace("\x7f", r"\u007f")  # the only character that json leaves and that is not printable
    return redact_line(line.encode()).decode()[len('{"":') : -len("}")]


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else repr(value)


def redact_fields(values: Mapping[str, object]) -> dict[str, object]:
    """Return the fields with the values of secret names replaced, at any depth."""
    return {
        name: REDACTED if _is_secret(name) else value if type(value) in _PLAIN else _redact(value, 1)
        for name, value in values.items()
    }


def redact_line(line: bytes) -> bytes:
    """Return an encoded line in which everything that has the form of a secret is replaced."""
    for beginning, pattern in _SECRET_VALUES:
        if beginning in line:
            line = pattern.sub(REDACTED.encode(), line)
    for between in _BETWEEN:
        if between in line:
            return _NAMED_VALUE.sub(rb"\1" + REDACTED.encode(), line)
    return line


@lru_cache(maxsize=1024)  # field names are few; unbounded names, such as keys of mappings, evict each other
def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None and name not in _HARMLESS


def _redact(value: object, depth: int) -> object:
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping | list | tuple) and depth >= _MAX_DEPTH:
        return repr(value)
    if isinstance(value, Mapping):
        return {name: REDACTED if _is_secret(name) else _redact(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(item, depth + 1) for item in value]
    return value

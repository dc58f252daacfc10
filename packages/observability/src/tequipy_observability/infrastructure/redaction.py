"""What no log line may show: secrets by the name of their field, and by the look of their value."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Final

REDACTED: Final = "[redacted]"

_NAMES: Final = r"passwd|password|secret|token|authorization|cookie|api[-_]?key|private[-_]?key|pepper|credential"
_SECRET_NAME: Final = re.compile(_NAMES, re.IGNORECASE)
# Names that only speak of secrets, and say something useful.
_HARMLESS: Final = frozenset({"token_type", "token_delivery"})
_PLAIN: Final = frozenset({str, int, float, bool, NoneType})
# Deeper than this a value is shown by its repr: it may hold itself.
_DEEPEST: Final = 8

# What a value begins with, and the pattern of the rest. They run over encoded lines: they match no character that JSON
# escapes, so that they find a value inside a JSON string too, and none begins at a word boundary, for there is none
# after an escaped newline (`\n`). Nothing is tried twice over a long stretch of text, whoever wrote it. Most lines hold
# none of the beginnings, which costs almost nothing to find out.
_SECRET_VALUES: Final = tuple(
    (beginning, re.compile(pattern))
    for beginning, pattern in (
        (b"eyJ", rb"eyJ[\w-]{8,}+(?:\.[\w-]*+){0,2}"),  # a JSON Web Token, cut off or whole
        (b"rt1.", rb"rt1\.[\w-]{22}\.[\w-]{43}"),  # a refresh token
        (b"ev1.", rb"ev1\.[\w-]{22}\.[\w-]{43}"),  # the token of a mailed link
        (b"dv2.", rb"dv2\.[0-9a-f]{32}\.\d{1,9}\.\d{1,12}\.[\w-]{22}\.[0-9a-f]{32}"),  # a device mark
        (b"://", rb"(?<=://)[^\s\"/:@]*:[^\s\"/]*(?=@)"),  # the user and password of a URL
        (b"Bearer ", rb"(?<=Bearer )[\w.~+/-]{8,}=*"),  # an Authorization header (RFC 6750)
        (b"Basic ", rb"(?<=Basic )[\w+/]{8,}=*"),  # the same (RFC 7617)
    )
)
# A secret with its name within a text, as `password=x`, `token: x`, `{'api_key': 'x'}` and `{"secret": "x"}`. What
# stands between them is escaped in a line, or followed by a blank: the line's own fields never match.
_NAMED_VALUE: Final = re.compile(
    rb"((?:%b)[\w-]{0,32}+(?:\\?['\"])?(?:=|:\s)\s?)(?:'[^'\\\"]*+|\\\"[^\\\"]*+|[^\s\"'\\&,;)}\]]++)"
    % _NAMES.encode(),
    re.IGNORECASE,
)
_BETWEEN: Final = (b"=", b": ")


def redact_fields(values: Mapping[str, object]) -> dict[str, object]:
    """Return the fields with the values of secret names replaced, however deep they are."""
    return {
        name: REDACTED if _is_secret(name) else value if type(value) in _PLAIN else _redact(value, 1)
        for name, value in values.items()
    }


def redact_line(line: bytes) -> bytes:
    """Return an encoded line with whatever looks like a secret replaced."""
    for beginning, pattern in _SECRET_VALUES:
        if beginning in line:
            line = pattern.sub(REDACTED.encode(), line)
    for between in _BETWEEN:
        if between in line:
            return _NAMED_VALUE.sub(rb"\1" + REDACTED.encode(), line)
    return line


@lru_cache(maxsize=1024)  # the names of fields are few; those of strangers' mappings push each other out
def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _SECRET_NAME.search(name) is not None and name not in _HARMLESS


def _redact(value: object, depth: int) -> object:
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping | list | tuple) and depth >= _DEEPEST:
        return repr(value)
    if isinstance(value, Mapping):
        return {name: REDACTED if _is_secret(name) else _redact(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(item, depth + 1) for item in value]
    return value

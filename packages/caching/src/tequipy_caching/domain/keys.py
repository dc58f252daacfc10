"""Keys: from what a caller has at hand to a name that no other key has."""

from hashlib import blake2b
from typing import Final
from uuid import UUID

Key = str | int | UUID | tuple["Key", ...]
"""What a value is found by. `True`, floats and other types are refused, for some of them are equal to others."""

MAX_BYTES: Final = 512
"""A longer name is cut and completed by a hash of the whole."""
_READABLE: Final = 400
_ALWAYS_FITS: Final = MAX_BYTES - len("s:")


def encode_key(key: Key) -> str:
    """Return the key's name, at most `MAX_BYTES` of UTF-8: no two keys have the same.

    The name begins with its kind (`s:ada`, `i:42`, `u:<hex>`, `t:<length>:<part>…`, `h:<beginning>~<hash>`), and the
    parts of a tuple with their lengths, so that nothing in a string can be mistaken for structure. Raises `TypeError`
    for a key of another type and `ValueError` for a string that is no text (lone surrogates).
    """
    # The usual keys first: this runs at every hit.
    if type(key) is str and key.isascii() and len(key) <= _ALWAYS_FITS:
        return f"s:{key}"
    if type(key) is UUID:
        return f"u:{key.hex}"
    name = _encode(key)
    if name.isascii() and len(name) <= MAX_BYTES:
        return name
    encoded = name.encode()
    if len(encoded) <= MAX_BYTES:
        return name
    readable = encoded[:_READABLE].decode(errors="ignore")
    return f"h:{readable}~{blake2b(encoded, digest_size=16).hexdigest()}"


def _encode(key: Key) -> str:
    if isinstance(key, str):
        return "s:" + key  # not an f-string, which would write a StrEnum by its name
    if isinstance(key, int) and not isinstance(key, bool):
        return f"i:{int(key)}"
    if isinstance(key, UUID):
        return f"u:{key.hex}"
    if isinstance(key, tuple):
        parts = [_encode(part) for part in key]
        return "t:" + "".join(f"{len(part)}:{part}" for part in parts)
    raise TypeError(f"a key is a str, int, UUID or a tuple of these, not {type(key).__name__}")

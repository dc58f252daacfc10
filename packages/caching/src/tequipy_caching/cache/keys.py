"""Keys of cached values, their unambiguous names in Redis, and the rule for the other parts of these names."""

import asyncio
import re
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import Final
from uuid import UUID

Key = str | int | UUID | tuple["Key", ...]
"""The key of a value. Booleans, floats and other types are refused, because `True == 1 == 1.0`."""

NAME_PATTERN: Final = "[A-Za-z0-9_.-]{1,64}"
"""The names of caches, sets and rate limit policies, and the prefix of all keys. No colon: it separates these parts."""
NAME_RULE: Final = "name must be 1 to 64 letters, digits, _, . and -"
"""The error message for a name that does not match `NAME_PATTERN`."""
MAX_BYTES: Final = 512
"""The longest name of a key in Redis; a longer one is truncated and extended by a hash of the whole."""
BATCH_SIZE: Final = 1000
"""How many keys one step handles: more would block the event loop and Redis."""
MAX_TAGS: Final = 255
"""The most tags of one value; they are counted in one byte."""
_NAME: Final = re.compile(NAME_PATTERN)
_READABLE_BYTES: Final = 400
"""How much of a name that is too long stays readable before its hash."""
_ALWAYS_FITS: Final = MAX_BYTES - len("s:")
_PLAIN_TYPES: Final = frozenset({str, int, UUID})


def is_name(text: str) -> bool:
    """Return whether a text is a valid name of a cache, set or rate limit policy."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raise `ValueError` for an invalid name."""
    if not is_name(name):
        raise ValueError(f"{NAME_RULE}, not {name!r}")


def canonical(key: Key) -> Key:
    """Convert subclasses of `str`, `int`, `UUID` and `tuple` in a key to these types, so that equal keys are one key.

    Raises `TypeError` for a key of another type, `True` and `1.0` included, which are equal to 1.
    """
    # A fast path for most keys, because this runs at every hit.
    kind = type(key)
    if kind in _PLAIN_TYPES:
        return key
    if kind is tuple:
        for part in key:  # type: ignore[union-attr]  # -- a tuple; a loop costs half of `issuperset(map(type, key))`
            if type(part) not in _PLAIN_TYPES:
                break
        else:
            return key
    if isinstance(key, str):
        return str.__str__(key)  # not str(), which a StrEnum overrides
    if isinstance(key, int) and not isinstance(key, bool):
        return int(key)
    if isinstance(key, UUID):
        return UUID(int=key.int)
    if isinstance(key, tuple):
        return tuple([canonical(part) for part in key])
    raise TypeError(f"a key is a str, int, UUID or a tuple of these, not {type(key).__name__}")


async def canonical_all(keys: Sequence[Key]) -> list[Key]:
    """Return `canonical` of each key; the event loop runs after each `BATCH_SIZE` keys."""
    converted: list[Key] = []
    for start in range(0, len(keys), BATCH_SIZE):
        if start:
            await asyncio.sleep(0)
        converted += [canonical(key) for key in keys[start : start + BATCH_SIZE]]
    return converted


def tag_id(tag: str) -> str:
    """Return a tag's id, a hash of 16 hexadecimal digits; a collision would only invalidate too many values.

    Raises `TypeError` for a tag of another type and `ValueError` for a string with lone surrogates.
    """
    if not isinstance(tag, str):
        raise TypeError(f"a tag is a str, not {type(tag).__name__}")
    return blake2b(tag.encode(), digest_size=8).hexdigest()


def tag_ids(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the ids of tags, each once."""
    return tuple([tag_id(tag) for tag in dict.fromkeys(tags)])


def value_tags(tags: Collection[str]) -> tuple[str, ...]:
    """Return the ids of the tags of one value.

    Raises `TypeError` for one string, which is a collection of its characters, and `ValueError` for too many tags.
    """
    if isinstance(tags, str):
        raise TypeError("tags are a collection of str, not one str")
    if not tags:
        return ()
    ids = tag_ids(tags)
    if len(ids) > MAX_TAGS:
        raise ValueError(f"a value has at most {MAX_TAGS} tags, not {len(ids)}")
    return ids


def encode_key(key: Key) -> str:
    """Return the unique name of a key in Redis, at most `MAX_BYTES` of UTF-8.

    The name begins with its kind (`s:ada`, `i:42`, `u:<hex>`, `t:<length>:<part>…`, `h:<beginning>~<hash>`). Parts of a
    tuple begin with their lengths, so that no character in a string can be confused with a separator. Raises
    `TypeError` for a key of another type and `ValueError` for a string with lone surrogates.
    """
    # Two fast paths, because this runs for every key that is looked up in Redis.
    if type(key) is str and key.isascii() and len(key) <= _ALWAYS_FITS:
        return f"s:{key}"
    if type(key) is UUID:
        return f"u:{key.hex}"
    name = _encode(canonical(key))
    if name.isascii() and len(name) <= MAX_BYTES:
        return name
    encoded = name.encode()
    if len(encoded) <= MAX_BYTES:
        return name
    readable = encoded[:_READABLE_BYTES].decode(errors="ignore")
    return f"h:{readable}~{blake2b(encoded, digest_size=16).hexdigest()}"


def _encode(key: Key) -> str:
    if isinstance(key, str):
        return f"s:{key}"
    if isinstance(key, int):
        return f"i:{key}"
    if isinstance(key, UUID):
        return f"u:{key.hex}"
    parts = [_encode(part) for part in key]
    return "t:" + "".join(f"{len(part)}:{part}" for part in parts)

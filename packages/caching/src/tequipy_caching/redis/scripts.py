"""The Lua scripts, and the check of their results."""

import contextlib
from collections.abc import Iterator
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

from tequipy_caching._exceptions import CacheUnavailable

_FOLDER: Final = files("tequipy_caching.redis") / "lua"
_PUBLISH: Final = "publish"


@cache
def script(name: str) -> str:
    """Return the text of a script in the folder `lua`, preceded by `publish.lua` if it publishes a message."""
    text = (_FOLDER / f"{name}.lua").read_text()
    return (_FOLDER / f"{_PUBLISH}.lua").read_text() + text if f"{_PUBLISH}()" in text else text


@cache
def digest_of(name: str) -> str:
    """Return the SHA-1 digest by which EVALSHA identifies a script."""
    return sha1(script(name).encode()).hexdigest()  # noqa: S324 -- EVALSHA requires SHA-1


@contextlib.contextmanager
def parsing(name: str) -> Iterator[None]:
    """Raise `CacheUnavailable` if the code in this context cannot parse the response to a script.

    A server that is not what it seems to be counts as unreachable; callers get no `TypeError`.
    """
    try:
        yield
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise CacheUnavailable(f"Redis sent an invalid response to {name!r}: {type(error).__name__}") from error

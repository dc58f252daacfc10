"""The bundled list of common passwords; `data/common_passwords.md` names its source."""

import gzip
from functools import cache
from importlib.resources import files
from types import TracebackType
from typing import Final, Self

from tequipy_auth.domain.passwords import fold
from tequipy_auth.domain.ports import CommonPasswords

_SEPARATOR: Final = b"\n"


class BundledCommonPasswords(CommonPasswords):
    """Keeps the common passwords in memory, as one text with a line for each.

    A set of them would take 5 MiB instead of 0.6, and a search of the text takes less than a millisecond, beside the
    hash of the same password that takes a quarter of a second. The text is read when auth opens, which takes 10 ms.
    """

    async def __aenter__(self) -> Self:
        _lines()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the text, because it never changes."""

    def __contains__(self, password: str) -> bool:
        """Return whether the list contains the password; ignores case."""
        word = fold(password).encode("utf-8", "surrogatepass")
        return _SEPARATOR not in word and _SEPARATOR + word + _SEPARATOR in _lines()


@cache
def _lines() -> bytes:
    """Return the list, each word between two separators."""
    packed = files("tequipy_auth.infrastructure").joinpath("data", "common_passwords.txt.gz").read_bytes()
    return _SEPARATOR + gzip.decompress(packed).rstrip(_SEPARATOR) + _SEPARATOR

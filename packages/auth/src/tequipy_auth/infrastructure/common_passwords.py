"""The bundled list of common passwords; `data/common_passwords.md` names its source."""

import asyncio
import gzip
from functools import cached_property
from importlib.resources import files
from types import TracebackType
from typing import Self

from tequipy_auth.domain.passwords import fold
from tequipy_auth.domain.ports import CommonPasswords


class BundledCommonPasswords(CommonPasswords):
    """Keeps the common passwords in memory.

    The set is read when auth opens, in a thread because it takes about 20 ms.
    """

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(lambda: self._passwords)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep the set, because it never changes."""

    def __contains__(self, password: str) -> bool:
        """Return whether the list contains the password; ignores case."""
        return fold(password) in self._passwords

    @cached_property
    def _passwords(self) -> frozenset[str]:
        packed = files("tequipy_auth.infrastructure").joinpath("data", "common_passwords.txt.gz").read_bytes()
        return frozenset(gzip.decompress(packed).decode("utf-8").splitlines())

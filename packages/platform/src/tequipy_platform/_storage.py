"""Object storage: the port, its errors, and the rules that all its implementations share."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final
from urllib.parse import quote

from tequipy_platform._errors import Conflict, Invalid, NotFound
from tequipy_platform._events import JSON

MAX_OBJECT_BYTES: Final = 5 * 1024**3
"""The size of the largest object: S3 copies no more in one request, and each stream is copied to its key."""

MAX_PRESIGNED: Final = timedelta(days=7)
"""The longest lifetime of a presigned URL (AWS Signature Version 4)."""

_KEY: Final = re.compile(r"(?=.{1,512}\Z)[\w-][\w.-]{0,199}(?:/[\w-][\w.-]{0,199})*", re.ASCII)

_UNSAFE_IN_NAMES: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069/\\]")
"""Control characters, lone surrogates, marks that reorder text (`exe.fdp`), and path separators."""

_MAX_NAME: Final = 150
_TOKEN: Final = "!#$&+-.^_`|~"  # noqa: S105 -- the characters of attr-char (RFC 8187, section 3.2.1) besides letters and digits


class ObjectNotFound(NotFound):
    """There is no object under this key."""

    code = "object_not_found"


class ObjectExists(Conflict):
    """An object with this key exists already; objects are never overwritten.

    A task that stores its result under a key of its own may meet the object of its previous attempt: `head` returns the
    SHA-256 to compare.
    """

    code = "object_exists"


class ObjectTooLarge(Invalid):
    """The content has more than 5 GiB."""

    code = "object_too_large"
    member_schemas: ClassVar[Mapping[str, JSON]] = {}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Metadata of an object; `size` is in bytes."""

    key: str
    size: int
    modified_at: datetime
    sha256: str | None = None
    """SHA-256 of the content in hexadecimal; None in the results of `list`."""


class ObjectStorage(ABC):
    """A port that stores objects; every method raises `Unavailable` when the store cannot be reached.

    A key consists of segments between slashes, 512 characters at most. A segment has at most 200 ASCII letters, digits,
    `_`, `-` and `.`, and does not begin with a dot. Another key raises `ValueError`: generate keys, and keep the names
    that people see elsewhere. A key must not continue another one with a slash, not even a deleted one, because a
    folder cannot hold both `a` and `a/b`.
    """

    @abstractmethod
    async def put(self, key: str, content: AsyncIterator[bytes] | bytes) -> StoredObject:
        """Store an object completely or not at all, and return its metadata with the SHA-256.

        A stream is never held in memory as a whole. Raises `ObjectExists` when the key is taken, even by another put at
        the same time, `ObjectTooLarge`, and whatever the stream raises. After `Unavailable` the object may be stored.
        """

    @abstractmethod
    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Stream an object, or its bytes from `start` to before `stop`, as a slice does.

        The first step raises `ObjectNotFound` if there is none, and `ValueError` unless 0 <= start < stop.
        """

    @abstractmethod
    async def head(self, key: str) -> StoredObject:
        """Return an object's metadata; raises `ObjectNotFound`."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove an object; does nothing when there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects whose key begins with `prefix`, which consists of complete path segments."""

    @abstractmethod
    async def remove_unfinished(self, *, before: datetime) -> int:
        """Remove what killed processes have left of puts that began before that time; return the number of files.

        Call it from time to time, with a time at which no put began that still runs. Uploads in parts to S3 are not
        among them: a lifecycle rule of the bucket aborts those.
        """

    @abstractmethod
    async def presign(
        self,
        key: str,
        *,
        filename: str,
        content_type: str = "application/octet-stream",
        expires_in: timedelta = timedelta(minutes=5),
    ) -> str | None:
        """Return a URL from which anybody can download the object under this name until it expires.

        Returns None if the store has no server of its own, as a folder: then send the stream of `get` with the header
        `content_disposition(filename)`. Does not check that the object exists. Raises `ValueError` unless `expires_in`
        is between a second and a week.
        """

    @abstractmethod
    async def ping(self) -> None:
        """Return when objects can be written and read."""


def check_key(key: str) -> None:
    """Raise `ValueError` unless the key has the form that every store accepts and returns unchanged."""
    if not _KEY.fullmatch(key):
        raise ValueError("a key has segments of letters, digits, _, - and . between slashes")


def check_range(start: int, stop: int | None) -> None:
    """Raise `ValueError` unless 0 <= start < stop."""
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"not a range of bytes: {start} to {stop}")


def check_lifetime(expires_in: timedelta) -> None:
    """Raise `ValueError` unless a presigned URL can live that long."""
    if not timedelta(seconds=1) <= expires_in <= MAX_PRESIGNED:
        raise ValueError("a presigned URL lives for a second to a week")


def content_disposition(filename: str) -> str:
    """Return the value of `Content-Disposition` for a download (RFC 6266), for any text as file name.

    Path separators, control characters and marks that reorder text become `_`. A name beyond ASCII is sent encoded
    (RFC 8187), beside an approximation for old clients.
    """
    name = _clean(filename)
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip(" .") or "download"
    plain = re.sub(r'["%;]', "_", ascii_name)  # what some clients decode or split (RFC 6266, appendix D)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_TOKEN)}"


def _clean(filename: str) -> str:
    """Return the file name without what a file system or a reader could misunderstand, and not too long."""
    name = _UNSAFE_IN_NAMES.sub("_", unicodedata.normalize("NFC", filename)).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if len(name) > _MAX_NAME:
        ending = dot + suffix if stem and len(suffix) < _MAX_NAME // 2 else ""
        name = name[: _MAX_NAME - len(ending)].rstrip(" .") + ending
    return name or "download"

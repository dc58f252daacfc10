"""Translation of obstore's errors, whose texts may quote what a server answered to a signed request."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tequipy_platform._errors import Unavailable
from tequipy_platform._storage import ObjectExists, ObjectNotFound

if TYPE_CHECKING:
    import obstore.exceptions
else:
    from tequipy_platform.storage import deferred as obstore

logger = logging.getLogger(__name__)

_BEFORE_BODY: Final = re.compile(r"[^\n<]*?status code: \d{3}[ \w]*|[^\n<]*")
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w{1,100})")
_CODE: Final = re.compile(r"<Code>(\w{1,100})</Code>")


def failures() -> tuple[type[Exception], ...]:
    """Return what obstore raises when a store does not do what it should."""
    return obstore.exceptions.BaseError, OSError, NotImplementedError


@contextmanager
def translated(operation: str) -> Iterator[None]:
    """Raise the port's errors in place of obstore's, and log why a store is unavailable.

    The original error is no cause of the new one, because tracebacks would show its text. An invalid argument remains
    a `ValueError`.
    """
    try:
        yield
    except obstore.exceptions.AlreadyExistsError:
        raise ObjectExists from None
    except failures() as error:
        if isinstance(error, FileNotFoundError) and operation in {"get", "head"} and _code(error) != "NoSuchBucket":
            raise ObjectNotFound from None
        logger.warning(
            "storage_failed", extra={"operation": operation, "error": _describe(error), "code": _code(error)}
        )
        raise Unavailable from None


def is_missing(error: FileNotFoundError) -> bool:
    """Return whether the object is missing, and not the bucket."""
    return _code(error) != "NoSuchBucket"


def _describe(error: BaseException) -> str:
    """Return kind and text of an error, without the body of a response: S3 quotes the signature in some."""
    match = _BEFORE_BODY.match(str(error))
    refused = _CERTIFICATE.search(str(error))
    reason = f"; the server's certificate is refused: {refused[1]}" if refused else ""
    return f"{type(error).__name__}: {match[0].strip() if match else ''}{reason}"


def _code(error: BaseException) -> str | None:
    """Return the error code of S3, as `SlowDown`, if the server sent one."""
    match = _CODE.search(str(error))
    return match[1] if match else None

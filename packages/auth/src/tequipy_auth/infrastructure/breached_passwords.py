"""Passwords of data breaches, looked up by k-anonymity in the range API of Have I Been Pwned or of a mirror."""

import hashlib
import logging
import re
from http import HTTPStatus
from typing import Final

import httpx
from prometheus_client import CollectorRegistry, Counter

from tequipy_auth.domain.ports import BreachedPasswords
from tequipy_platform.http import HttpClients

_PREFIX_LENGTH: Final = 5
_TIMEOUT: Final = 1.0
"""Seconds for the whole call, because a person waits for it."""
_MAX_BYTES: Final = 512 * 1024
"""Many times the length of a range, which has about 1,000 lines of 40 bytes."""
_RANGE: Final = re.compile(rb"(?:[0-9A-F]{35}:[0-9]{1,10}\r?(?:\n|\Z))+")
"""Lines of a suffix, 35 of the 40 characters of a hash, and the number of times that it was found."""
_CHECKS: Final = ("breached", "not_breached", "failed")

logger = logging.getLogger(__name__)


class MalformedRange(Exception):
    """The response is not a list of hashes with their counts."""


class PwnedPasswords(BreachedPasswords):
    """Asks the API for all hashes that begin like that of the password, and looks for it among them.

    The API learns five of the 40 characters of the SHA-1 hash, which hundreds of breached passwords share. The ranges
    are not cached, because five characters in Redis would narrow down the password of the account that was stored at
    the same time. A check that fails accepts the password, and is counted and logged.

    `auth_breached_password_checks_total{outcome}` counts the checks: `breached`, `not_breached` or `failed`.
    """

    def __init__(self, http: HttpClients, *, url: str, registry: CollectorRegistry | None = None) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._checks = Counter(
            "auth_breached_password_checks",
            "New passwords that were looked up among breached ones; failed: the password was accepted unchecked.",
            ["outcome"],
            registry=registry,
        )
        for outcome in _CHECKS:  # so that the first failure is an increase
            self._checks.labels(outcome)

    async def contains(self, password: str) -> bool:
        """Return whether the API knows the password; False if it has not answered correctly within a second."""
        raw = password.encode("utf-8", "surrogatepass")
        digest = hashlib.sha1(raw, usedforsecurity=False).hexdigest().upper().encode()
        prefix, suffix = digest[:_PREFIX_LENGTH], digest[_PREFIX_LENGTH:]
        try:
            known = contains_suffix(await self._range(prefix.decode()), suffix)
        except (httpx.HTTPError, MalformedRange) as error:
            # The text of the error is not logged, because it may contain the URL, which ends with the prefix.
            self._checks.labels("failed").inc()
            logger.warning("breached_password_check_failed", extra={"error": type(error).__name__})
            return False
        self._checks.labels("breached" if known else "not_breached").inc()
        return known

    async def _range(self, prefix: str) -> bytes:
        """Return the body of the response that lists the hashes with this prefix."""
        response = await self._http.default.get(
            f"{self._url}/range/{prefix}",
            headers={"Add-Padding": "true"},  # so that the length of the response does not reveal the prefix
            follow_redirects=False,
            extensions={"total": _TIMEOUT, "max_response_bytes": _MAX_BYTES},
        )
        if response.status_code != HTTPStatus.OK:
            raise httpx.HTTPStatusError("The range was not returned.", request=response.request, response=response)
        return response.content


def contains_suffix(hashes: bytes, suffix: bytes) -> bool:
    """Return whether a range lists the hash with this suffix; raises `MalformedRange` if a line has another form."""
    if _RANGE.fullmatch(hashes) is None:
        raise MalformedRange
    # Entries with the count 0 are padding.
    return re.search(rb"^%b:0*[1-9]" % suffix, hashes, re.MULTILINE) is not None

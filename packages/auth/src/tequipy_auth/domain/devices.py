"""Marks of browsers that have logged in before, so that a stranger's guesses cannot lock the owner out."""

import hmac
from base64 import urlsafe_b64encode
from typing import Final
from uuid import UUID

from tequipy_auth.domain.pseudonyms import Pseudonyms
from tequipy_platform import RandomSource

_PREFIX: Final = "dv1"
_ID_BYTES: Final = 16


class Devices:
    """Makes and recognises marks: `dv1.<account digest>.<device id>.<signature>`.

    A mark proves that somebody logged in to the account with this browser, no more: it opens nothing.
    """

    def __init__(self, pseudonyms: Pseudonyms, random: RandomSource) -> None:
        self._pseudonyms = pseudonyms
        self._random = random

    def mark(self, user_id: UUID, *, known: str | None = None) -> str:
        """Return a mark for the account; a browser whose `known` mark is good keeps its device id."""
        device_id = self.recognise(known, user_id)
        if device_id is None:
            device_id = urlsafe_b64encode(self._random(_ID_BYTES)).rstrip(b"=").decode("ascii")
        account = self._account(user_id)
        return f"{_PREFIX}.{account}.{device_id}.{self._signature(account, device_id)}"

    def recognise(self, mark: str | None, user_id: UUID) -> str | None:
        """Return the device id of a mark that was made for this account, None for anything else."""
        prefix, *rest = (mark or "").split(".")
        if prefix != _PREFIX or len(rest) != 3 or not all(part.isascii() for part in rest):  # noqa: PLR2004 -- its parts
            return None
        account, device_id, signature = rest
        genuine = hmac.compare_digest(signature, self._signature(account, device_id))
        return device_id if genuine and account == self._account(user_id) else None

    def _account(self, user_id: UUID) -> str:
        return self._pseudonyms.of("device account", str(user_id))

    def _signature(self, account: str, device_id: str) -> str:
        return self._pseudonyms.of("device signature", account, device_id)

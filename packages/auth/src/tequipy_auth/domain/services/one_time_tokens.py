"""One-time tokens: created when the mail is sent, checked when the link is opened."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from tequipy_auth.domain.audit import AuditAction, AuditEvent, Outcome
from tequipy_auth.domain.entities import OneTimeToken
from tequipy_auth.domain.exceptions import InvalidOneTimeToken
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import SECRET_BYTES, Client, OneTimeTokenValue, Purpose
from tequipy_platform import Clock, IdSource, RandomSource


def read_one_time_token(text: str) -> OneTimeTokenValue:
    """Parse a mailed token; raises `InvalidOneTimeToken` for malformed text."""
    try:
        return OneTimeTokenValue.parse(text)
    except ValueError as error:
        raise InvalidOneTimeToken from error


async def record_refused_token(
    work: AuthUnitOfWork, value: OneTimeTokenValue, action: AuditAction, reason: str, client: Client
) -> None:
    """Audit the refusal of a token that was issued here.

    An unknown id is only counted (`auth_operations_total`): anybody can invent ids, and each one would make the audit
    larger.
    """
    if await work.one_time_tokens.is_known(value.id):
        metadata = {"token": str(value.id)}
        work.audit.record(AuditEvent(action, Outcome.FAILURE, reason, client=client, metadata=metadata))


@dataclass(frozen=True, slots=True)
class MailedLink:
    """A link that contains a token, and its expiry."""

    url: str = field(repr=False)
    expires_at: datetime


class LinkMinter:
    """Creates tokens and their links; only hashes of the tokens are stored."""

    def __init__(
        self, policy: AuthPolicy, public_url: str, clock: Clock, new_id: IdSource, random: RandomSource
    ) -> None:
        self._policy = policy
        self._public_url = public_url
        self._clock = clock
        self._new_id = new_id
        self._random = random

    async def link(
        self,
        work: AuthUnitOfWork,
        purpose: Purpose,
        subject_id: UUID,
        *,
        ttl: timedelta,
        not_after: datetime | None = None,
    ) -> MailedLink:
        """Return a link that is valid for `ttl`, at most until `not_after`.

        A subject has at most `live_tokens_per_purpose` valid links; a further one invalidates the oldest, but never one
        that undoes a change of address: an attacker would request further changes. A session has one link that ends it.
        """
        now = self._clock.now()
        expires_at = now + ttl if not_after is None else min(now + ttl, not_after)
        value = OneTimeTokenValue.new(self._new_id(), self._random(SECRET_BYTES))
        token = OneTimeToken(
            id=value.id,
            purpose=purpose,
            subject_id=subject_id,
            secret_hash=value.secret_hash,
            created_at=now,
            expires_at=expires_at,
        )
        keep = {Purpose.UNDO_EMAIL: None, Purpose.END_SESSION: 1}
        await work.one_time_tokens.add(token, keep=keep.get(purpose, self._policy.live_tokens_per_purpose))
        # The token is in the fragment, so it reaches no server, log or Referer header; only a POST uses it.
        return MailedLink(f"{self._public_url}/{purpose.value}#token={value}", expires_at)

"""The tokens of mailed links: minted when the mail is sent, read when the link is opened."""

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
    """Return a token as it was mailed; raises `InvalidOneTimeToken` for what was never one."""
    try:
        return OneTimeTokenValue.parse(text)
    except ValueError as error:
        raise InvalidOneTimeToken from error


async def record_refused_token(
    work: AuthUnitOfWork, value: OneTimeTokenValue, action: AuditAction, reason: str, client: Client
) -> None:
    """Record the refusal of a token that was mailed once.

    An id that we never gave out is not recorded, only counted (`auth_operations_total`): anybody can make up as many as
    they like, and the audit would grow by each.
    """
    if await work.one_time_tokens.is_known(value.id):
        metadata = {"token": str(value.id)}
        work.audit.record(AuditEvent(action, Outcome.FAILURE, reason, client=client, metadata=metadata))


@dataclass(frozen=True, slots=True)
class MailedLink:
    """A link with its token, and when it ends."""

    url: str = field(repr=False)
    expires_at: datetime


class LinkMinter:
    """Mints tokens and the links that carry them; only their hashes are kept."""

    def __init__(self, policy: AuthPolicy, clock: Clock, new_id: IdSource, random: RandomSource) -> None:
        self._policy = policy
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
        """Return a link that is good for `ttl`, not beyond the end of what it is about; the oldest of many dies."""
        now = self._clock.now()
        value = OneTimeTokenValue.new(self._new_id(), self._random(SECRET_BYTES))
        token = OneTimeToken(
            id=value.id,
            purpose=purpose,
            subject_id=subject_id,
            secret_hash=value.secret_hash,
            created_at=now,
            expires_at=min(now + ttl, not_after or now + ttl),
        )
        await work.one_time_tokens.add(token, keep=self._policy.live_tokens_per_purpose)
        # In the fragment: it reaches no server, no log and no Referer; only a POST consumes it.
        return MailedLink(f"{self._policy.public_url}/{purpose.value}#token={value}", token.expires_at)

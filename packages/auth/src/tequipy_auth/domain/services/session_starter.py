"""Creation of sessions."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import SecretHasher, SuccessorKeys
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.services.session_ender import SessionEnder, SessionRevocation
from tequipy_auth.domain.value_objects import SECRET_BYTES, Client, RefreshTokenValue
from tequipy_platform import Clock, IdSource, RandomSource


@dataclass(frozen=True, slots=True)
class NewSession:
    """A new session and its first refresh token, not stored yet."""

    session: Session
    token: RefreshToken
    value: RefreshTokenValue = field(repr=False)


class SessionStarter:
    """Creates sessions in two steps, because hashing must not happen in a transaction."""

    def __init__(
        self,
        *,
        ender: SessionEnder,
        secrets: SecretHasher,
        successor_keys: SuccessorKeys,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        random: RandomSource,
    ) -> None:
        self._ender = ender
        self._secrets = secrets
        self._successor_keys = successor_keys
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._random = random

    async def prepare(self, user: User, client: Client, *, amr: tuple[str, ...]) -> NewSession:
        """Create a session and hash the secret of its first refresh token; nothing is stored yet."""
        value = RefreshTokenValue.new(self._new_id(), self._random(SECRET_BYTES))
        secret_hash = await self._secrets.hash(value.secret)
        now = self._clock.now()
        session = Session(
            id=self._new_id(),
            user_id=user.id,
            client=client,
            amr=amr,
            auth_time=now,
            created_at=now,
            last_used_at=now,
            idle_expires_at=now + self._policy.refresh_idle,
            absolute_expires_at=now + self._policy.refresh_absolute,
        )
        token = RefreshToken(value.id, session.id, None, secret_hash, self._successor_keys.current_version, now)
        return NewSession(session, token, value)

    async def save(self, work: AuthUnitOfWork, new: NewSession) -> tuple[str, ...]:
        """Store the session in the caller's transaction, which holds the lock of the user's row.

        If the account has the maximum number of sessions, the oldest are revoked. Returns their revoked ids to
        `publish` after the commit.
        """
        session = new.session
        oldest = await work.sessions.live_of(
            session.user_id, at=session.created_at, beyond=self._policy.sessions_per_user - 1
        )
        revocation = SessionRevocation(
            "too_many_sessions", session.created_at, actor_id=session.user_id, client=session.client
        )
        revoked_ids = await self._ender.end(work, session.user_id, [each.id for each in oldest], revocation)
        await work.sessions.add(session)
        await work.refresh_tokens.add(new.token)
        return revoked_ids

    async def publish(self, revoked_ids: Iterable[str]) -> None:
        """Publish the ids that `save` returned to every process."""
        await self._ender.publish(revoked_ids)

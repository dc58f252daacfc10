"""Beginning a session, whatever proved who it is."""

from dataclasses import dataclass, field

from tequipy_auth.domain.entities import RefreshToken, Session, User
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import SecretHasher, SuccessorKeys
from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.domain.value_objects import SECRET_BYTES, Client, RefreshTokenValue
from tequipy_platform import Clock, IdSource, RandomSource


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that can be kept, with the first refresh token of its chain."""

    session: Session
    token: RefreshToken
    value: RefreshTokenValue = field(repr=False)


class SessionStarter:
    """Begins sessions in two steps, for hashing must not happen inside a transaction."""

    def __init__(
        self,
        *,
        secrets: SecretHasher,
        successor_keys: SuccessorKeys,
        policy: AuthPolicy,
        clock: Clock,
        new_id: IdSource,
        random: RandomSource,
    ) -> None:
        self._secrets = secrets
        self._successor_keys = successor_keys
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._random = random

    async def prepare(self, user: User, client: Client, *, amr: tuple[str, ...]) -> NewSession:
        """Make a session and hash its first secret; nothing is kept yet."""
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

    async def keep(self, work: AuthUnitOfWork, new: NewSession) -> None:
        """Keep the session within the caller's transaction, which holds the lock of the user's row."""
        await work.sessions.add(new.session)
        await work.refresh_tokens.add(new.token)

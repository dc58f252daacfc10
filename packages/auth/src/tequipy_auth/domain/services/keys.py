"""The life of signing keys: published before their first use, kept until their last token has expired."""

from collections.abc import Callable, Sequence
from datetime import datetime

from tequipy_auth.domain.audit import AuditAction, AuditEvent
from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.exceptions import KeyNotPublishedLongEnough, UnknownKey
from tequipy_auth.domain.operations import Operations, counted
from tequipy_auth.domain.policy import AuthPolicy
from tequipy_auth.domain.ports import KeyMaker, Revocations
from tequipy_auth.domain.repositories import AuthUnitOfWork, SigningKeys
from tequipy_auth.domain.revocations import revoked_key
from tequipy_platform import Clock, retry_conflicts


class KeyService:
    """Makes, rotates and revokes the keys that sign access tokens.

    There is always a next key, published well before anybody needs it, so that a rotation takes no waiting and an
    active key can be revoked at any moment.
    """

    def __init__(
        self,
        unit_of_work: Callable[[], AuthUnitOfWork],
        *,
        maker: KeyMaker,
        revocations: Revocations,
        policy: AuthPolicy,
        clock: Clock,
        operations: Operations,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._maker = maker
        self._revocations = revocations
        self._policy = policy
        self._clock = clock
        self.operations = operations

    async def keys(self) -> Sequence[SigningKey]:
        """Return every key there ever was, the oldest first."""
        async with self._unit_of_work() as work:
            return await work.signing_keys.all()

    async def published(self) -> Sequence[SigningKey]:
        """Return the keys that may have signed a good token or soon will, exactly one of them active.

        Makes the first ones when there are none: of processes that do so at once, one does.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            keys = await work.signing_keys.all()
            if _first(keys, KeyState.ACTIVE) is None:
                await work.signing_keys.lock()
                keys = await self._ensure_active_and_next(work.signing_keys, now)
        return [key for key in keys if not self._is_expired(key, now)]

    @counted("key_rotate")
    @retry_conflicts
    async def rotate(self) -> str:
        """Let the next key sign and the active one retire; return the id of the key that signs from now on.

        Raises `KeyNotPublishedLongEnough` while somebody may hold a key set without the next key, and `KeyUnusable`
        when the next key cannot be decrypted here.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await work.signing_keys.lock()
            keys = await self._ensure_active_and_next(work.signing_keys, now)
            following = next(key for key in keys if key.state is KeyState.NEXT)
            usable_at = following.created_at + self._policy.jwks_max_age
            if usable_at <= now:
                self._maker.check(following)
                await self._retire(work.signing_keys, keys, now)
                await work.signing_keys.move(following.kid, KeyState.ACTIVE, at=now)
                await self._ensure_active_and_next(work.signing_keys, now)
                work.audit.record(AuditEvent(AuditAction.KEY_ROTATED, metadata={"kid": following.kid}))
        if usable_at > now:  # raised only now: keys that were made are to be kept
            raise KeyNotPublishedLongEnough(following.kid, usable_at)
        return following.kid

    @counted("key_revoke")
    @retry_conflicts
    async def revoke(self, kid: str) -> None:
        """Take a key out of use: every process refuses what it signed at once; raises `UnknownKey` and `KeyUnusable`.

        An active key is followed by the next one, however young that is: to be refused for some minutes by somebody who
        caches the key set is better than to believe a thief.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await work.signing_keys.lock()
            if not any(key.kid == kid and key.state is not KeyState.REVOKED for key in await work.signing_keys.all()):
                raise UnknownKey(kid)
            await work.signing_keys.move(kid, KeyState.REVOKED, at=now)
            await self._ensure_active_and_next(work.signing_keys, now)
            work.audit.record(AuditEvent(AuditAction.KEY_ROTATED, reason="key_revoked", metadata={"kid": kid}))
            work.outbox.add("auth.publish_revocations", members=[revoked_key(kid)])
        await self._revocations.add(revoked_key(kid))

    @counted("key_reencrypt")
    @retry_conflicts
    async def reencrypt(self) -> Sequence[str]:
        """Encrypt every key under the newest key-encryption key; return the ids of those that were not yet.

        Raises `KeyUnusable` when a key cannot be decrypted, and changes none then.
        """
        async with self._unit_of_work() as work:
            await work.signing_keys.lock()
            keys = [key for key in await work.signing_keys.all() if key.state is not KeyState.REVOKED]
            renewed = [key for key in map(self._maker.reencrypt, keys) if key is not None]
            for key in renewed:
                await work.signing_keys.replace(key)
                work.audit.record(
                    AuditEvent(AuditAction.KEY_ROTATED, reason="key_reencrypted", metadata={"kid": key.kid})
                )
        return [key.kid for key in renewed]

    async def _ensure_active_and_next(self, store: SigningKeys, now: datetime) -> Sequence[SigningKey]:
        """Return all keys, an active and a next one among them, made where they were missing; the lock is held."""
        keys = await store.all()
        following = _first(keys, KeyState.NEXT)
        if _first(keys, KeyState.ACTIVE) is None:
            if following is None:
                await store.add(self._maker.make(KeyState.ACTIVE, now))
            else:
                self._maker.check(following)
                await store.move(following.kid, KeyState.ACTIVE, at=now)
                following = None
        if following is None:
            await store.add(self._maker.make(KeyState.NEXT, now))
        return await store.all()

    async def _retire(self, store: SigningKeys, keys: Sequence[SigningKey], now: datetime) -> None:
        """Let the active key retire, and those that retired long ago be over."""
        for key in keys:
            if key.state is KeyState.ACTIVE:
                await store.move(key.kid, KeyState.RETIRING, at=now)
            elif key.state is KeyState.RETIRING and self._is_expired(key, now):
                await store.move(key.kid, KeyState.REVOKED, at=now)

    def _is_expired(self, key: SigningKey, now: datetime) -> bool:
        """Tell whether no good token of this key is left."""
        if key.state is KeyState.RETIRING:
            return key.state_changed_at + self._policy.key_retirement <= now
        return key.state is KeyState.REVOKED


def _first(keys: Sequence[SigningKey], state: KeyState) -> SigningKey | None:
    """Return the key in this state that is there for the longest."""
    return next((key for key in keys if key.state is state), None)

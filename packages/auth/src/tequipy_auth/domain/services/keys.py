"""Creation, rotation and revocation of signing keys."""

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
from tequipy_auth.domain.task_names import PUBLISH_REVOCATIONS
from tequipy_platform import Clock, retry_conflicts


class KeyService:
    """Creates, rotates and revokes the keys that sign access tokens.

    There is always a next key, which is published long before it is needed. So a rotation does not have to wait, and an
    active key can be revoked at any time.
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
        self._operations = operations

    async def keys(self) -> Sequence[SigningKey]:
        """Return all keys, including revoked ones, oldest first."""
        async with self._unit_of_work() as work:
            return await work.signing_keys.all()

    async def published(self) -> Sequence[SigningKey]:
        """Return the keys to publish: the active key, the next one, and retiring ones whose tokens may still be valid.

        Creates the first keys if there are none; only one of several concurrent processes does.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            keys = await work.signing_keys.all()
            if _oldest(keys, KeyState.ACTIVE) is None:
                await work.signing_keys.lock()
                keys = await self._ensure_active_and_next(work.signing_keys, now)
        return [key for key in keys if not self._is_expired(key, now)]

    @counted("key_rotate")
    @retry_conflicts
    async def rotate(self) -> str:
        """Make the next key active and the active key retiring; return the id of the newly active key.

        Raises `KeyNotPublishedLongEnough` while clients may have a cached key set without the next key, and
        `KeyUnusable` when the next key cannot be decrypted here.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await work.signing_keys.lock()
            keys = await self._ensure_active_and_next(work.signing_keys, now)
            next_key = next(key for key in keys if key.state is KeyState.NEXT)
            usable_at = next_key.created_at + self._policy.jwks_max_age
            if usable_at <= now:
                self._maker.check(next_key)
                await self._retire(work.signing_keys, keys, now)
                await work.signing_keys.move(next_key.kid, KeyState.ACTIVE, at=now)
                await self._ensure_active_and_next(work.signing_keys, now)
                work.audit.record(AuditEvent(AuditAction.KEY_ROTATED, metadata={"kid": next_key.kid}))
        if usable_at > now:  # raised after the transaction, so that newly created keys are kept
            raise KeyNotPublishedLongEnough(next_key.kid, usable_at)
        return next_key.kid

    @counted("key_revoke")
    @retry_conflicts
    async def revoke(self, kid: str) -> None:
        """Revoke a key, so that every process rejects its tokens at once; raises `UnknownKey` and `KeyUnusable`.

        If the key is active, the next key becomes active even if it was published only recently: some clients may
        reject its tokens for a few minutes, which is better than accepting tokens of an attacker.
        """
        now = self._clock.now()
        async with self._unit_of_work() as work:
            await work.signing_keys.lock()
            if not any(key.kid == kid and key.state is not KeyState.REVOKED for key in await work.signing_keys.all()):
                raise UnknownKey(kid)
            await work.signing_keys.move(kid, KeyState.REVOKED, at=now)
            await self._ensure_active_and_next(work.signing_keys, now)
            work.audit.record(AuditEvent(AuditAction.KEY_ROTATED, reason="key_revoked", metadata={"kid": kid}))
            work.outbox.add(PUBLISH_REVOCATIONS, members=[revoked_key(kid)])
        await self._revocations.add(revoked_key(kid))

    @counted("key_reencrypt")
    @retry_conflicts
    async def reencrypt(self) -> Sequence[str]:
        """Encrypt all keys with the newest key-encryption key; return the ids of the keys that were re-encrypted.

        Raises `KeyUnusable` when a key cannot be decrypted; then no key is changed.
        """
        async with self._unit_of_work() as work:
            await work.signing_keys.lock()
            keys = [key for key in await work.signing_keys.all() if key.state is not KeyState.REVOKED]
            reencrypted = [key for key in map(self._maker.reencrypt, keys) if key is not None]
            for key in reencrypted:
                await work.signing_keys.replace(key)
                work.audit.record(
                    AuditEvent(AuditAction.KEY_ROTATED, reason="key_reencrypted", metadata={"kid": key.kid})
                )
        return [key.kid for key in reencrypted]

    async def _ensure_active_and_next(self, store: SigningKeys, now: datetime) -> Sequence[SigningKey]:
        """Return all keys and create a missing active or next key; the caller holds the lock."""
        keys = await store.all()
        next_key = _oldest(keys, KeyState.NEXT)
        if _oldest(keys, KeyState.ACTIVE) is None:
            if next_key is None:
                await store.add(self._maker.make(KeyState.ACTIVE, now))
            else:
                self._maker.check(next_key)
                await store.move(next_key.kid, KeyState.ACTIVE, at=now)
                next_key = None
        if next_key is None:
            await store.add(self._maker.make(KeyState.NEXT, now))
        return await store.all()

    async def _retire(self, store: SigningKeys, keys: Sequence[SigningKey], now: datetime) -> None:
        """Make the active key retiring, and revoke retiring keys whose last token has expired."""
        for key in keys:
            if key.state is KeyState.ACTIVE:
                await store.move(key.kid, KeyState.RETIRING, at=now)
            elif key.state is KeyState.RETIRING and self._is_expired(key, now):
                await store.move(key.kid, KeyState.REVOKED, at=now)

    def _is_expired(self, key: SigningKey, now: datetime) -> bool:
        """Return whether no valid token of this key exists any more."""
        if key.state is KeyState.RETIRING:
            return key.state_changed_at + self._policy.key_retirement <= now
        return key.state is KeyState.REVOKED


def _oldest(keys: Sequence[SigningKey], state: KeyState) -> SigningKey | None:
    """Return the oldest key in this state, or None."""
    return next((key for key in keys if key.state is state), None)

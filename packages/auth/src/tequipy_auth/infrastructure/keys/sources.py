"""Loading of the key set from the database or from files."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tequipy_auth.domain.entities import KeyState, SigningKey
from tequipy_auth.domain.exceptions import KeyUnusable
from tequipy_auth.infrastructure.keys.encryption import EncryptedKeys
from tequipy_auth.infrastructure.keys.jwk import (
    KeySet,
    Private,
    PrivateKey,
    PublicKey,
    algorithm_of,
    public_jwk,
    thumbprint,
)

logger = logging.getLogger(__name__)


class StoredKeys:
    """Loads the key set from the keys that `published` returns."""

    def __init__(self, published: Callable[[], Awaitable[Sequence[SigningKey]]], encrypted: EncryptedKeys) -> None:
        self._published = published
        self._encrypted = encrypted
        self._refused: set[str] = set()

    async def load(self) -> KeySet:
        """Return the keys; raises `KeyUnusable` for the active key, and `Unavailable` without a database.

        Any other key that cannot be decrypted is left out, and logged once as `signing_key_excluded`.
        """
        keys = await self._published()
        active = next(key for key in keys if key.state is KeyState.ACTIVE)
        opened = self._encrypted.open(active)
        published = [self._publish(key) for key in keys]
        return KeySet(opened, {key.kid: key for key in published if key is not None})

    def _publish(self, key: SigningKey) -> PublicKey | None:
        try:
            return self._encrypted.publish(key)
        except KeyUnusable as error:
            if key.kid not in self._refused:
                logger.error("signing_key_excluded", extra={"kid": key.kid, "error": str(error)})  # noqa: TRY400 -- a traceback adds nothing
            self._refused.add(key.kid)
            return None


class FileKeys:
    """Loads the key set from a folder, as a secret manager mounts it: private keys in PKCS #8 PEM.

    `active.pem` signs; every other `*.pem` is only published. To rotate, add the file of the next key, wait for the
    max-age of the key set, swap the two names, and remove the old file when its last token has expired.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self) -> KeySet:
        """Return the keys; raises `KeyUnusable`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> KeySet:
        keys = {path.name: _read_pem(path) for path in sorted(self._folder.glob("*.pem"))}
        if "active.pem" not in keys:
            raise _file_error(f"there is no active.pem in {self._folder}: put the key there that is to sign.")
        published = [
            PublicKey(key.kid, key.algorithm, public_jwk(key.key.public_key()), key.key.public_key())
            for key in keys.values()
        ]
        return KeySet(keys["active.pem"], {key.kid: key for key in published})


def _read_pem(path: Path) -> PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _file_error(f"{path} holds no unencrypted private key in PEM.") from error
    algorithm = algorithm_of(key)
    if algorithm is None or not isinstance(key, Private):
        raise _file_error(f"{path}: a P-256, an Ed25519 or an RSA key of at least 2048 bits is needed.")
    return PrivateKey(thumbprint(public_jwk(key.public_key())), algorithm, key)


def _file_error(reason: str) -> KeyUnusable:
    return KeyUnusable(reason, setting="signing_keys_folder")

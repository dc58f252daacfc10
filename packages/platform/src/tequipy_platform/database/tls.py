"""TLS contexts for PostgreSQL: libpq's `sslmode` with certificates from the settings alone."""

import ssl
from pathlib import Path
from typing import Final

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""The values of libpq's `sslmode`; the default is `prefer`."""


def tls_attempts(
    mode: str, *, root_cert: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> tuple[ssl.SSLContext | bool, ...]:
    """Return the values of asyncpg's argument `ssl` for the first connection attempt and, if there is one, the second.

    Given the name of a mode, asyncpg would read certificates, keys and revocation lists from `~/.postgresql`, which
    fails if HOME belongs to another user. Here `verify-ca` and `verify-full` trust `root_cert`, or the system's
    authorities without one. `require` verifies the authority if there is a `root_cert`, as libpq does.
    Raises `OSError` (`ssl.SSLError` is a subclass) for a file that cannot be used.
    """
    if mode == "disable":
        return (False,)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # TLS 1.2 at least
    context.check_hostname = mode == "verify-full"
    if mode in {"allow", "prefer"} or (mode == "require" and root_cert is None):
        context.verify_mode = ssl.CERT_NONE
    elif root_cert is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=root_cert)
    if cert is not None:
        context.load_cert_chain(cert, keyfile=key, password=_no_passphrase)
    if mode == "allow":
        return (False, context)
    return (context, False) if mode == "prefer" else (context,)


def _no_passphrase() -> str:
    """Return an empty passphrase, because OpenSSL would otherwise ask for it at the terminal."""
    return ""

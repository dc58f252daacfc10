"""Validation of Redis URLs, and their translation into arguments of redis-py.

redis-py is too tolerant: it reads a database that is not a number as 0, and passes an unknown option on as an argument,
so that each new connection fails. `tequipy_platform.messaging.celery.broker_url` has the same rules for the broker;
`tests/test_redis_urls.py` compares the two.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic_core import PydanticCustomError

_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_DATABASE: Final = re.compile(r"/?|/(0|[1-9][0-9]{0,4})")
_CERT_REQS: Final = {"required": "required", "CERT_REQUIRED": "required", "none": "none", "CERT_NONE": "none"}
"""Celery documents the upper-case names, redis-py the others."""
_OPTIONS: Final = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
INSECURE: Final = "ssl_cert_reqs=none is refused in production: it accepts any certificate"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a valid URL."""

    host: str
    port: int
    database: int
    username: str | None
    password: str | None = field(repr=False)
    tls: Mapping[str, Any] | None
    """Arguments of redis-py's `SSLConnection`; None without TLS."""

    @property
    def verified(self) -> bool:
        """Whether the certificate is verified: False with `ssl_cert_reqs=none`; True without TLS."""
        return self.tls is None or self.tls["ssl_cert_reqs"] != "none"


def parse_redis_url(url: str) -> RedisUrl:
    """Return the parts of a URL of the form `redis://user:password@host:port/database`.

    With the scheme `rediss`, certificate and host name are verified. Options may name files in PEM format
    (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`) or turn the verification off. Raises `PydanticCustomError`, a
    `ValueError`, whose message never quotes the URL, because it may contain a password.
    """
    parts, port = _split(url)
    if parts.scheme not in {"redis", "rediss"}:
        raise PydanticCustomError("url_scheme", "URL scheme should be redis or rediss")
    if not _DATABASE.fullmatch(parts.path):
        raise PydanticCustomError("url_database", "URL should end with the number of a database, as /0")
    encrypted = parts.scheme == "rediss"
    if parts.query and not encrypted:
        raise PydanticCustomError("url_query", "URL may have options with the scheme rediss alone")
    return RedisUrl(
        host=_host(parts),
        port=6379 if port is None else port,
        database=int(parts.path.strip("/") or 0),
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        tls=_tls_options(parts.query) if encrypted else None,
    )


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port  # not a number if an unencoded / in the password ends the authority early
    except ValueError:  # suppressed, because its message quotes the URL
        raise _encoding_fault() from None
    if parts.fragment:  # an unencoded # in the password begins a fragment
        raise _encoding_fault()
    # urlsplit silently removes line breaks and tabs, and redis-py treats port 0 as a missing port.
    if port == 0 or any(character.isspace() or not character.isprintable() for character in url):
        raise PydanticCustomError("url", "URL should hold no white space, and a port from 1 to 65535")
    return parts, port


def _encoding_fault() -> PydanticCustomError:
    return PydanticCustomError(
        "url", "user and password should be percent-encoded (/ as %2F, @ as %40), the port at most 65535"
    )


def _decoded(text: str | None) -> str | None:
    try:
        return unquote(text, errors="strict") if text else None
    except UnicodeDecodeError:
        raise _encoding_fault() from None


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host and "%" not in host:
        try:
            return str(IPv6Address(host))
        except ValueError:
            host = ""
    if not _HOST.fullmatch(host):
        raise PydanticCustomError("url_host", "URL should name a host")
    return host


def _tls_options(query: str) -> Mapping[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict") if query else []
    except ValueError:
        pairs = [("", "")]
    given = dict(pairs)
    if len(given) < len(pairs) or not given.keys() <= set(_OPTIONS):
        raise PydanticCustomError(
            "url_query", "URL may have no option but {names}, each once", {"names": ", ".join(_OPTIONS)}
        )
    cert_reqs = _CERT_REQS.get(given.get("ssl_cert_reqs", "required"))
    if cert_reqs is None:
        raise PydanticCustomError("url_query", "ssl_cert_reqs should be required or none")
    check_hostname = {"true": True, "false": False}.get(given.get("ssl_check_hostname", "true"))
    if check_hostname is None:
        raise PydanticCustomError("url_query", "ssl_check_hostname should be true or false")
    files = {name: path for name, path in given.items() if name in _FILES}
    if not check_hostname and cert_reqs == "required" and "ssl_ca_certs" not in files:
        raise PydanticCustomError(
            "url_query", "ssl_check_hostname=false needs ssl_ca_certs: anybody has a certificate of a public authority"
        )
    _check_files(files)
    return {"ssl_cert_reqs": cert_reqs, "ssl_check_hostname": check_hostname and cert_reqs == "required", **files}


def _check_files(files: Mapping[str, str]) -> None:
    """Load the files as a connection will, so that a bad file is a settings error and not a failing connection."""
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise PydanticCustomError("url_query", "ssl_keyfile needs ssl_certfile too")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ssl_ca_certs" in files:
            context.load_verify_locations(cafile=files["ssl_ca_certs"])
        if "ssl_certfile" in files:
            # The empty passphrase refuses encrypted keys; without it OpenSSL would ask for one at the terminal.
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"), password=lambda: b"")
    except (OSError, ValueError):  # an SSLError is an OSError; a path with NUL is a ValueError
        raise PydanticCustomError(
            "url_query", "ssl_ca_certs, ssl_certfile and ssl_keyfile should be readable files in PEM format"
        ) from None

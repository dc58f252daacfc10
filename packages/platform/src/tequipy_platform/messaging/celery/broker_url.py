"""Parsing and validation of the URLs of brokers: Redis and RabbitMQ.

kombu verifies no certificate unless it is configured to, and an unknown option ends the process with a traceback.
`tequipy_caching.redis.url` has the same rules for the cache's Redis; `tests/test_redis_urls.py` compares them.
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
"""Celery documents the upper-case names, redis-py the lower-case ones."""
_OPTIONS: Final = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile")
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_AMQP_NAMES: Final = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}
"""Names of the options in py-amqp."""
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
    """Arguments of redis-py's `SSLConnection`; None: not encrypted."""

    @property
    def verified(self) -> bool:
        """Whether the server is verified: False with `ssl_cert_reqs=none` only, so True also without TLS."""
        return self.tls is None or self.tls["ssl_cert_reqs"] != "none"


@dataclass(frozen=True, slots=True)
class AmqpUrl:
    """The parts of a valid URL of RabbitMQ."""

    host: str
    port: int
    virtual_host: str
    username: str | None
    password: str | None = field(repr=False)
    tls: Mapping[str, Any] | None
    """Arguments of py-amqp's `SSLTransport`; None: not encrypted."""

    @property
    def verified(self) -> bool:
        """Whether the server is verified; True also without TLS."""
        return self.tls is None or self.tls["cert_reqs"] != ssl.CERT_NONE


def parse_broker_url(url: str) -> RedisUrl | AmqpUrl:
    """Parse the URL of a broker like `parse_redis_url`, or like `parse_amqp_url`."""
    scheme = _split(url)[0].scheme
    if scheme in {"amqp", "amqps"}:
        return parse_amqp_url(url)
    if scheme not in {"redis", "rediss"}:
        raise PydanticCustomError("url_scheme", "URL scheme should be redis, rediss, amqp or amqps")
    return parse_redis_url(url)


def parse_amqp_url(url: str) -> AmqpUrl:
    """Parse a URL of RabbitMQ; raises `PydanticCustomError` (a `ValueError`), whose message never quotes the URL.

    The form is `amqp://user:password@host:port/virtual_host`, by default the virtual host `/`. With `amqps`,
    certificate and host name are verified, and the options are those of `rediss`.
    """
    parts, port = _split(url)
    if parts.scheme not in {"amqp", "amqps"}:
        raise PydanticCustomError("url_scheme", "URL scheme should be amqp or amqps")
    encrypted = parts.scheme == "amqps"
    if parts.query and not encrypted:
        raise PydanticCustomError("url_query", "URL may have options with the scheme amqps alone")
    name = parts.path.removeprefix("/")
    if "/" in name and name != "/":
        raise PydanticCustomError("url_virtual_host", "URL should end with one virtual host, percent-encoded")
    host = _host(parts)
    return AmqpUrl(
        host=host,
        port=(5671 if encrypted else 5672) if port is None else port,
        virtual_host=_decoded(name) or "/",
        username=_decoded(parts.username),
        password=_decoded(parts.password),
        tls=_amqp_options(_tls_options(parts.query), host) if encrypted else None,
    )


def _amqp_options(options: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    """Return the TLS options as py-amqp names them; it checks the host name if it is given one."""
    files = {name: options[option] for option, name in _AMQP_NAMES.items() if option in options}
    required = options["ssl_cert_reqs"] == "required"
    checked = {"server_hostname": host} if options["ssl_check_hostname"] else {}
    return {"cert_reqs": ssl.CERT_REQUIRED if required else ssl.CERT_NONE, **checked, **files}


def parse_redis_url(url: str) -> RedisUrl:
    """Parse a URL; raises `PydanticCustomError` (a `ValueError`), whose message never quotes the URL.

    The form is `redis://user:password@host:port/database`. With `rediss`, certificate and host name are verified, and
    options may name PEM files (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`) or disable the verification.
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
        port = parts.port  # a / in a password ends the host part early, and the rest is no number
    except ValueError:  # the error is dropped, because its message quotes the URL
        raise _encoding_fault() from None
    if parts.fragment:  # an unencoded # in a password starts a fragment
        raise _encoding_fault()
    # urlsplit silently removes line breaks and tabs, and kombu treats port 0 as absent.
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
    """Load the files as a connection would: a wrong file would otherwise look like a server that is down."""
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        raise PydanticCustomError("url_query", "ssl_keyfile needs ssl_certfile too")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ssl_ca_certs" in files:
            context.load_verify_locations(cafile=files["ssl_ca_certs"])
        if "ssl_certfile" in files:
            # A key with a passphrase is refused, because OpenSSL would ask for it at the terminal.
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"), password=lambda: b"")
    except (OSError, ValueError):  # an SSLError is an OSError; a path with NUL is a ValueError
        raise PydanticCustomError(
            "url_query", "ssl_ca_certs, ssl_certfile and ssl_keyfile should be readable files in PEM format"
        ) from None

"""Redis URLs: invalid ones are refused by cache, limiter and broker, and `rediss://` verifies the server."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kombu.exceptions import OperationalError
from pydantic import SecretStr, ValidationError
from redis.exceptions import ConnectionError as RedisConnectionError

from tequipy_caching import CacheUnavailable, RatePolicy
from tequipy_caching.wiring import CacheSettings, LimiterSettings, build_cache, build_rate_limiter
from tequipy_devstack.proving import Authority, Link, in_background
from tequipy_devstack.servers import ValkeyServer
from tequipy_platform.messaging.celery import CelerySettings, build_celery

SECTIONS: dict[str, Callable[[str], CacheSettings | LimiterSettings | CelerySettings]] = {
    "cache": lambda url: CacheSettings(url=SecretStr(url)),
    "limiter": lambda url: LimiterSettings(url=SecretStr(url)),
    "broker": lambda url: CelerySettings(broker_url=SecretStr(url)),
    "results": lambda url: CelerySettings(broker_url=SecretStr("redis://h"), result_backend=SecretStr(url)),
}
DATABASE = "URL should end with the number of a database, as /0"
SCHEMES = "URL scheme should be redis or rediss"
BROKER_SCHEMES = "URL scheme should be redis, rediss, amqp or amqps"
ENCODING = "user and password should be percent-encoded (/ as %2F, @ as %40), the port at most 65535"
OPTIONS = "URL may have options with the scheme rediss alone"
SPELLING = "URL should hold no white space, and a port from 1 to 65535"
NAMES = (
    "URL may have no option but ssl_ca_certs, ssl_cert_reqs, ssl_certfile, ssl_check_hostname, ssl_keyfile, each once"
)
FILES = "ssl_ca_certs, ssl_certfile and ssl_keyfile should be readable files in PEM format"
REFUSED = {
    "redis://:hunter2@h/cache": DATABASE,
    "redis://:hunter2@h/0/1": DATABASE,
    "redis://:hunter2@h/01": DATABASE,
    "redis://:hunter2@h/-1": DATABASE,
    "redis://:hunter2@h/%30": DATABASE,
    "redis://:hunter2@h/0;redis://b/0": DATABASE,
    "redis://:hunter2@h/0?foo=bar": OPTIONS,
    "redis://:hunter2@h/0?ssl_cert_reqs=CERT_NONE": OPTIONS,
    "redis://:hunter2@h/0?socket_timeout=5": OPTIONS,
    "redis://:hunter2@h/0?db=3": OPTIONS,
    "rediss://:hunter2@h/0?socket_timeout=5": NAMES,
    "rediss://:hunter2@h/0?ssl_ca_cert=x": NAMES,
    "rediss://:hunter2@h/0?ssl_cert_reqs=none&ssl_cert_reqs=required": NAMES,
    "rediss://:hunter2@h/0?ssl_cert_reqs=optional": "ssl_cert_reqs should be required or none",
    "rediss://:hunter2@h/0?ssl_check_hostname=no": "ssl_check_hostname should be true or false",
    "rediss://:hunter2@h/0?ssl_check_hostname=false": (
        "ssl_check_hostname=false needs ssl_ca_certs: anybody has a certificate of a public authority"
    ),
    "rediss://:hunter2@h/0?ssl_keyfile=/k": "ssl_keyfile needs ssl_certfile too",
    "rediss://:hunter2@h/0?ssl_ca_certs=/no/such/file": FILES,
    "rediss://:hunter2@h/0?ssl_certfile=/dev/null": FILES,
    "redis://:hunter2@h:70000/0": ENCODING,
    "redis://:hunter2@:6379/0": "URL should name a host",
    "redis://:hunter2@-/0": "URL should name a host",
    "redis://:hunter2@a..b/0": "URL should name a host",
    "redis://:hunter2@%68/0": "URL should name a host",
    "redis://:hunter2@[fe80::1%25eth0]/0": "URL should name a host",
    "unix:///hunter2": SCHEMES,
    "redis+socket:///hunter2": SCHEMES,
    "redis://:hunter2/x@h/0": ENCODING,
    "redis://:hunter2#@h/0": ENCODING,
    "redis://:hunter2%ff@h/0": ENCODING,
    "redis://:hunter2@h:99999/0": ENCODING,
    "redis://:hunter2@h:0/0": SPELLING,
    "redis://:hunter2@h/0\n": SPELLING,
    " redis://:hunter2@h/0": SPELLING,
}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("url", REFUSED)
def test_a_wrong_url_is_one_line(section: str, url: str) -> None:
    """Path, options and form of each Redis URL are checked with the settings; the fault shows no value."""
    with pytest.raises(ValidationError) as caught:
        SECTIONS[section](url)
    (fault,) = caught.value.errors(include_input=False)
    expected = REFUSED[url]
    assert fault["msg"] == (BROKER_SCHEMES if section == "broker" and expected == SCHEMES else expected)
    assert "hunter2" not in str(caught.value)


def accepts(section: str, url: str) -> bool:
    """Return whether a section accepts a URL; any other error than a fault of the setting propagates."""
    try:
        SECTIONS[section](url)
    except ValidationError:
        return False
    return True


def _behind_a_host(pieces: list[str]) -> str:
    return "rediss://h/" + "".join(pieces)


WORDS = ("redis", "rediss", "://", "%2F", "%ff", "::1", "h.example", "..", "6379", "70000", "ssl_cert_reqs", "none")
PIECES = st.sampled_from([*WORDS, *":/?#@%[]=&; \t0h"])


@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join), st.lists(PIECES).map(_behind_a_host)))
def test_cache_and_broker_agree_on_every_url(url: str) -> None:
    """Cache and broker, which may not share code, accept the same URLs, and no text causes another error."""
    assume(not url.startswith("amqp"))  # which the broker alone may be
    assert len({accepts(section, url) for section in SECTIONS}) == 1


class Trust(NamedTuple):
    """A server's URL and certificate options for a client."""

    url: str
    accepted: bool


@pytest.fixture(params=["right", "another authority", "another host", "system authorities", "unverified"])
def trust(request: pytest.FixtureRequest, private_redis: ValkeyServer, tmp_path: Path) -> Iterator[Trust]:
    """Yield a Valkey behind TLS, the client's URL, and whether the client should trust the server."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate = ours.issue("127.0.0.2" if request.param == "another host" else "127.0.0.1")
    options = {
        "right": f"?ssl_ca_certs={ours.certificate}",
        "another authority": f"?ssl_ca_certs={theirs.certificate}",
        "another host": f"?ssl_ca_certs={ours.certificate}",
        "system authorities": "",
        "unverified": "?ssl_cert_reqs=none",
    }[request.param]
    with in_background(Link(private_redis.port, certificate=certificate)) as link:
        url = f"rediss://:{private_redis.password}@127.0.0.1:{link.port}/0{options}"
        yield Trust(url, request.param in {"right", "unverified"})


def test_the_cache_verifies_certificate_and_host(trust: Trust) -> None:
    """A server with an untrusted certificate or another host's counts as unreachable and gets no password."""

    async def run() -> bool:
        async with build_cache(CacheSettings(url=SecretStr(trust.url), l2_timeout=5)) as manager:
            try:
                await manager.ping()
            except CacheUnavailable as error:
                return "CERTIFICATE_VERIFY_FAILED" not in str(error.__cause__)
            return True

    assert asyncio.run(run()) is trust.accepted


def test_the_limiter_verifies_certificate_and_host(trust: Trust) -> None:
    """A limiter decides alone if its Redis cannot be trusted."""

    async def run() -> bool:
        cache = CacheSettings(url=SecretStr("redis://127.0.0.1:1"), l2_timeout=5)
        async with build_rate_limiter(cache, LimiterSettings(url=SecretStr(trust.url))) as limiter:
            return (await limiter.hit(RatePolicy("login", 5, 60), "ada")).degraded

    assert asyncio.run(run()) is not trust.accepted


def test_the_broker_verifies_certificate_and_host(trust: Trust, caplog: pytest.LogCaptureFixture) -> None:
    """kombu and the result backend connect to a trusted server only, without warnings about insecure defaults."""
    url = SecretStr(trust.url)
    celery = build_celery(CelerySettings(broker_url=url, result_backend=url), name="test")
    with celery.connection_for_write() as connection:
        if trust.accepted:
            connection.ensure_connection(max_retries=1)
            assert connection.default_channel.client.ping()  # type: ignore[attr-defined]  # -- exists for Redis
            assert celery.backend.client.ping()  # type: ignore[attr-defined]  # -- as above
        else:
            with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
                connection.ensure_connection(max_retries=1)
            with pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                celery.backend.client.ping()  # type: ignore[attr-defined]  # -- as above
    assert "insecure" not in caplog.text


@pytest.mark.parametrize("section", SECTIONS)
def test_production_refuses_an_unverified_server(section: str) -> None:
    """Production refuses `ssl_cert_reqs=none`, and accepts a verified or an unencrypted server."""
    for url, faults in [("redis://h", 0), ("rediss://h", 0), ("rediss://h?ssl_cert_reqs=CERT_NONE", 1)]:
        found = list(SECTIONS[section](url).production_faults())
        assert len(found) == faults
        assert all("ssl_cert_reqs=none is refused in production" in message for _, message in found)

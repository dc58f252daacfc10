"""URLs of RabbitMQ: invalid ones are refused with one line, and `amqps://` verifies the server."""

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from pydantic import SecretStr, ValidationError

from tequipy_devstack.proving import Authority
from tequipy_platform.messaging.celery import CelerySettings, build_celery

ENCODING = "user and password should be percent-encoded (/ as %2F, @ as %40), the port at most 65535"
REFUSED = {
    "amqp://:hunter2@h/a/b": "URL should end with one virtual host, percent-encoded",
    "amqp://:hunter2@h/v?heartbeat=5": "URL may have options with the scheme amqps alone",
    "amqp://:hunter2@/v": "URL should name a host",
    "amqp://:hunter2/x@h/v": ENCODING,
    "amqp://:hunter2#@h/v": ENCODING,
    "amqp://:hunter2@h/%ff": ENCODING,
    "amqp://:hunter2@h:70000/v": ENCODING,
    "amqp://:hunter2@h:0/v": "URL should hold no white space, and a port from 1 to 65535",
    "amqps://:hunter2@h/v?ssl_cert_reqs=optional": "ssl_cert_reqs should be required or none",
    "amqps://:hunter2@h/v?heartbeat=5": (
        "URL may have no option but ssl_ca_certs, ssl_cert_reqs, ssl_certfile, ssl_check_hostname, ssl_keyfile, "
        "each once"
    ),
    "amqps://:hunter2@h/v?ssl_ca_certs=/no/such": (
        "ssl_ca_certs, ssl_certfile and ssl_keyfile should be readable files in PEM format"
    ),
    "pyamqp://:hunter2@h/v": "URL scheme should be redis, rediss, amqp or amqps",
    "memory://": "URL scheme should be redis, rediss, amqp or amqps",
}


def settings(url: str) -> CelerySettings:
    return CelerySettings(broker_url=SecretStr(url))


@pytest.mark.parametrize("url", REFUSED)
def test_a_wrong_url_is_one_line(url: str) -> None:
    """Virtual host, options and form of the URL are checked with the settings; the fault shows no value."""
    with pytest.raises(ValidationError) as caught:
        settings(url)
    (fault,) = caught.value.errors(include_input=False)
    assert fault["msg"] == REFUSED[url]
    assert "hunter2" not in str(caught.value)


def test_results_are_kept_in_redis_alone() -> None:
    """A result backend in RabbitMQ is refused."""
    with pytest.raises(ValidationError, match="URL scheme should be redis or rediss"):
        CelerySettings(broker_url=SecretStr("amqp://h"), result_backend=SecretStr("amqp://h"))


@given(st.sampled_from(["amqp://", "amqps://"]), st.text() | st.text("ah:@/%2F?=&#[]", max_size=20))
def test_any_text_is_accepted_or_a_fault(scheme: str, rest: str) -> None:
    """No text causes another error than a fault of the setting, and kombu reads an accepted one alike."""
    try:
        accepted = settings(scheme + rest)
    except ValidationError:
        return
    celery = build_celery(accepted, name="test")
    connection: Connection = celery.connection_for_write()
    assert connection.virtual_host == getattr(accepted.broker, "virtual_host", None)
    assert (connection.hostname or "").lower() == accepted.broker.host
    assert (connection.userid or None, connection.password or None) == (
        accepted.broker.username,
        accepted.broker.password,
    )


def test_the_server_is_verified_unless_it_is_switched_off(tmp_path: Path) -> None:
    """`amqps://` requires a certificate of the host; production refuses `ssl_cert_reqs=none`."""
    authority = Authority(tmp_path)
    verified = settings(f"amqps://h/v?ssl_ca_certs={authority.certificate}")
    assert verified.broker.tls == {
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": "h",
        "ca_certs": str(authority.certificate),
    }
    assert (verified.broker.port, settings("amqp://h").broker.port) == (5671, 5672)
    assert list(verified.production_faults()) == []
    assert list(settings("amqp://h").production_faults()) == []
    ((name, message),) = settings("amqps://h?ssl_cert_reqs=none").production_faults()
    assert (name, "refused in production" in message) == ("broker_url", True)

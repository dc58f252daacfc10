"""TLS to PostgreSQL in each mode, with certificates from the settings alone."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url

from tequipy_platform.database import DatabaseSettings, build_database
from tequipy_platform.database.migrations import migrate
from tequipy_platform.database.tls import SSL_MODES
from tequipy_platform.messaging.migrations import HISTORY

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key."""

    cert: Path
    key: Path


def make_pair(folder: Path, name: str) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.cert.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    encoding, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
    pair.key.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption))
    return pair


@dataclass
class TlsEnd:
    """A TLS proxy for a PostgreSQL without TLS: answers the protocol's SSLRequest, then forwards bytes."""

    upstream: int
    context: ssl.SSLContext | None
    encrypted: list[bool] = field(default_factory=list)
    peers: list[object] = field(default_factory=list)

    transports: list[asyncio.BaseTransport] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.transports.append(writer.transport)
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            asked = first == SSL_REQUEST
            if asked and self.context is None:
                writer.write(b"N")
            elif asked:
                writer.write(b"S")
                await writer.start_tls(self.context)  # type: ignore[arg-type]  # -- not None here
                self.transports.append(writer.transport)
                self.peers.append(writer.get_extra_info("peercert"))
            back, onward = await asyncio.open_connection("127.0.0.1", self.upstream)
            self.transports.append(onward.transport)
            onward.write(b"" if asked else first)
            self.encrypted.append(asked and self.context is not None)
            await asyncio.gather(pump(reader, onward), pump(back, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tls_end(database_url: str, context: ssl.SSLContext | None) -> AsyncIterator[tuple[str, TlsEnd]]:
    """Yield the URL of the database through a TLS proxy, and that proxy."""
    url = make_url(database_url)
    end = TlsEnd(url.port or 0, context)
    server = await asyncio.start_server(end.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield url.set(host="localhost", port=port).render_as_string(hide_password=False), end
    for transport in reversed(end.transports):
        transport.abort()  # type: ignore[attr-defined]  # -- all transports here have sockets
    while not all(transport.is_closing() for transport in end.transports):
        await asyncio.sleep(0)


def server_context(pair: Pair, clients: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def connects(url: str, mode: str, **files: Path) -> bool:
    """Return whether the pool and a connection outside of it can connect."""
    settings = DatabaseSettings.model_validate({"url": SecretStr(f"{url}?ssl={mode}"), **files})
    async with build_database(settings) as database:
        try:
            await database.ping()
        except (ssl.SSLError, ConnectionError, asyncpg.PostgresConnectionError):
            return False
        async with database.engine.connect():
            return True


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set HOME to a folder of another user, with certificates that must not be used."""
    home = tmp_path / "home"
    (home / ".postgresql").mkdir(parents=True)
    for name in ("root.crt", "root.crl", "postgresql.crt", "postgresql.key"):
        (home / ".postgresql" / name).write_text("of somebody else")
    (home / ".pgpass").mkdir()  # asyncpg warns of a .pgpass that is no file, and warnings are errors in tests
    monkeypatch.setenv("HOME", str(home))


@pytest.mark.parametrize("mode", SSL_MODES)
async def test_each_mode_verifies_as_documented(database_url: str, tmp_path: Path, mode: str) -> None:
    """With TLS on the server: which modes use it, and which refuse an unknown authority or a wrong host name."""
    ours, other = make_pair(tmp_path, "localhost"), make_pair(tmp_path, "db.example.com")
    verifies = mode in {"require", "verify-ca", "verify-full"}
    async with tls_end(database_url, server_context(ours)) as (url, end):
        assert await connects(url, mode, ssl_root_cert=ours.cert)
        assert set(end.encrypted) == {mode not in {"disable", "allow"}}
        assert await connects(url, mode, ssl_root_cert=other.cert) is not verifies
        assert await connects(url, mode) is (mode not in {"verify-ca", "verify-full"})  # unknown to the system
    async with tls_end(database_url, server_context(other)) as (url, _):
        assert await connects(url, mode, ssl_root_cert=other.cert) is (mode != "verify-full")


@pytest.mark.parametrize("mode", SSL_MODES)
async def test_a_server_without_tls_is_refused_from_require_on(database_url: str, mode: str) -> None:
    """`require` and stricter modes never connect without TLS; the others do."""
    async with tls_end(database_url, None) as (url, _):
        assert await connects(url, mode) is (mode in {"disable", "allow", "prefer"})


async def test_a_server_may_ask_for_our_certificate(database_url: str, tmp_path: Path) -> None:
    """The client certificate and key of the settings are sent to the server."""
    ours, client = make_pair(tmp_path, "localhost"), make_pair(tmp_path, "app")
    async with tls_end(database_url, server_context(ours, clients=client.cert)) as (url, end):
        assert not await connects(url, "verify-full", ssl_root_cert=ours.cert)
        files = {"ssl_root_cert": ours.cert, "ssl_cert": client.cert, "ssl_key": client.key}
        assert await connects(url, "verify-full", **files)
        assert end.peers[-1]


async def test_migrations_connect_as_the_apps_do(database_url: str, tmp_path: Path) -> None:
    """`migrate` uses the same certificates, and nothing from HOME."""
    ours = make_pair(tmp_path, "localhost")
    async with tls_end(database_url, server_context(ours)) as (url, end):
        settings = DatabaseSettings(url=SecretStr(f"{url}?ssl=verify-full"), ssl_root_cert=ours.cert)
        await asyncio.to_thread(migrate, settings, [HISTORY], "current", output=io.StringIO())
        assert set(end.encrypted) == {True}


async def test_no_password_is_read_from_elsewhere(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a URL without a password, neither the environment nor a password file in HOME is read."""
    monkeypatch.setenv("PGPASSWORD", make_url(database_url).password or "")
    url = make_url(database_url)._replace(password=None).render_as_string()
    async with build_database(DatabaseSettings(url=SecretStr(url))) as database:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await database.ping()


def test_a_file_that_is_no_certificate_is_refused_with_the_settings(tmp_path: Path) -> None:
    """A missing file, a file without a certificate, and a key of another certificate are refused with the settings."""
    ours, other = make_pair(tmp_path, "localhost"), make_pair(tmp_path, "app")
    for files in (
        {"ssl_root_cert": tmp_path / "none"},
        {"ssl_root_cert": ours.key},
        {"ssl_cert": ours.cert},
        {"ssl_key": ours.key},
        {"ssl_cert": ours.cert, "ssl_key": other.key},
    ):
        with pytest.raises(ValidationError) as error:
            DatabaseSettings.model_validate({"url": SecretStr("postgresql+asyncpg://localhost/none"), **files})
        assert "PRIVATE" not in str(error.value)

"""Faults of an S3 server: each call ends in bounded time as `Unavailable`, and shows no credentials."""

import asyncio
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving.certificates import Authority
from tequipy_devstack.proving.network import Link
from tequipy_platform import ObjectStorage, Unavailable
from tequipy_platform.storage import StorageSettings, build_storage

from .s3_settings import ACCESS_KEY, SECRET_KEY, read, s3_settings
from .s3_stub import HANGS, RESETS, Answer, answer, serving
from .test_storage import PART, chunks

TIMEOUT = 0.3

FAULTS = {
    "hangs": HANGS,
    "resets": RESETS,
    "503": answer("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"),
    "500": answer("500 Internal Server Error"),
    "403": answer("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>"),
    "redirects": answer("301 Moved Permanently", b"<Error><Code>PermanentRedirect</Code></Error>"),
    "is no HTTP": Answer(b"SSH-2.0-OpenSSH_9.2\r\n"),
}
NOT_FOUND = answer("404 Not Found")
UPLOAD = answer(
    "200 OK", b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>", closes=True
)
UPLOADED = answer("200 OK", b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>')

STEPS = {
    "create": [NOT_FOUND],
    "part": [NOT_FOUND, UPLOAD],
    "finish": [NOT_FOUND, UPLOAD, *[answer("200 OK")] * 3],
    "copy": [NOT_FOUND, UPLOAD, *[answer("200 OK")] * 3, UPLOADED],
}
"""The answers before each step of an upload in three parts."""


async def list_all(storage: ObjectStorage) -> None:
    _ = [stored async for stored in storage.list()]


CALLS: dict[str, Callable[[ObjectStorage], Awaitable[object]]] = {
    "put": lambda storage: storage.put("a", b"1"),
    "put a long stream": lambda storage: storage.put("a", chunks(3 * PART)),
    "get": lambda storage: read(storage, "a"),
    "get a range": lambda storage: read(storage, "a", start=2, stop=5000),
    "head": lambda storage: storage.head("a"),
    "delete": lambda storage: storage.delete("a"),
    "list": list_all,
    "ping": lambda storage: storage.ping(),
}


async def expect_unavailable(what: str, call: Awaitable[object]) -> None:
    """Await a call that raises `Unavailable`, and print after how many timeouts."""
    began = time.monotonic()
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable):
            await call
    print(f"{what}: Unavailable after {(time.monotonic() - began) / TIMEOUT:.1f} times the timeout")


@asynccontextmanager
async def faulty(fault: str) -> AsyncIterator[str]:
    """Yield the address of a server with this fault."""
    if fault == "refuses":
        yield f"http://127.0.0.1:{free_port()}"
        return
    async with serving(FAULTS[fault]) as stub:
        yield stub.address


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["refuses", *FAULTS])
async def test_each_fault_ends_as_unavailable(fault: str, call: str) -> None:
    """Whatever the server does, the call ends in bounded time and raises `Unavailable`."""
    async with faulty(fault) as address:
        storage = build_storage(s3_settings(address, timeout=TIMEOUT))
        await expect_unavailable(f"{fault}: {call}", CALLS[call](storage))


@pytest.mark.parametrize("fault", ["hangs", "resets", "503", "403"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_fault_in_the_middle_of_a_long_stream(fault: str, step: str) -> None:
    """A server that fails after an upload has begun ends the put as `Unavailable`, though it cannot be aborted."""
    async with serving(*STEPS[step], FAULTS[fault]) as stub:
        storage = build_storage(s3_settings(stub.address, timeout=TIMEOUT))
        await expect_unavailable(f"{fault} at {step}", storage.put("a", chunks(3 * PART)))


@pytest.mark.parametrize("closes", [True, False], ids=["closes", "hangs"])
async def test_half_a_body_is_no_object(closes: bool) -> None:
    """A download that ends or stands still before its announced length raises `Unavailable`."""
    async with serving(answer("200 OK", b"12345", length=10, closes=closes)) as stub:
        storage = build_storage(s3_settings(stub.address, timeout=TIMEOUT))
        await expect_unavailable("half a body", read(storage, "a"))


async def test_an_interrupted_download_goes_on() -> None:
    """After a lost connection the rest of the object is requested, and the content is complete."""
    rest = answer("206 Partial Content", b"67890", fields="Content-Range: bytes 5-9/10\r\n")
    async with serving(answer("200 OK", b"12345", length=10, closes=True), rest) as stub:
        assert await read(build_storage(s3_settings(stub.address)), "a") == b"1234567890"
    assert "range: bytes=5-9" in stub.requests[1]


@pytest.mark.parametrize("fault", ["503", "500", "resets"])
async def test_a_passing_fault_is_not_noticed(fault: str) -> None:
    """A request that fails twice is tried again, and succeeds."""
    async with serving(FAULTS[fault], FAULTS[fault], answer("200 OK", b"1")) as stub:
        assert await read(build_storage(s3_settings(stub.address)), "a") == b"1"
    assert len(stub.requests) == 3


async def test_s3_goes_away_and_comes_back(s3: StorageSettings) -> None:
    """The same storage works again when the server is back."""
    async with Link(httpx.URL(s3.endpoint or "").port or 80) as link:
        settings = s3.model_copy(update={"endpoint": f"http://127.0.0.1:{link.port}", "timeout": 2})
        storage = build_storage(settings)
        await storage.put("a", b"1")
        target, link.target = link.target, None
        with pytest.raises(Unavailable):
            await storage.put("b", b"2")
        link.target = target
        await storage.put("b", b"2")
        assert await read(storage, "a") == b"1"


async def test_a_slow_reader_loses_no_bytes(s3: StorageSettings) -> None:
    """A download whose reader pauses for longer than the timeout continues; the timeout is that of the server."""
    await build_storage(s3).put("a", chunks(6 * PART))
    storage, size = build_storage(s3.model_copy(update={"timeout": 2})), 0
    async for number, chunk in _numbered(storage.get("a")):
        size += len(chunk)
        if number == 3:
            await asyncio.sleep(4)
    assert size == 6 * PART


async def _numbered(stream: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for chunk in stream:
        yield number, chunk
        number += 1


@pytest.mark.parametrize("call", CALLS)
async def test_errors_and_logs_show_no_credentials(call: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that quotes the request in its error, as S3 does, brings it neither into the traceback nor into a log.

    The log has status and code, which tell what is wrong.
    """

    body = (
        f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId>"
        f"<StringToSign>AWS4-HMAC-SHA256 quoted {SECRET_KEY}</StringToSign></Error>"
    )
    async with serving(answer("403 Forbidden", body.encode())) as stub:
        storage = build_storage(s3_settings(stub.address))
        with pytest.raises(Unavailable) as raised:
            await CALLS[call](storage)
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(vars(storage))
    shown += "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for secret in (ACCESS_KEY, SECRET_KEY, "quoted", "X-Amz"):
        assert secret not in shown
    (record,) = caplog.records
    assert (record.message, vars(record)["code"]) in {
        ("storage_failed", "SignatureDoesNotMatch"),
        ("storage_failed", None),  # HEAD has no body
    }
    assert "status code: 403 Forbidden" in vars(record)["error"]


async def test_a_certificate_that_is_refused_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why the connection failed, because that is mended by `SSL_CERT_FILE` and not in the network."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Authority(tmp_path).issue("127.0.0.1"))
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        storage = build_storage(s3_settings(f"https://127.0.0.1:{port}", timeout=TIMEOUT))
        with pytest.raises(Unavailable):
            await storage.ping()
    (record,) = [each for each in caplog.records if each.message == "storage_failed"]
    assert vars(record)["error"].endswith("; the server's certificate is refused: UnknownIssuer")

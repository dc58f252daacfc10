"""What only S3 does: its uploads, its configuration, and presigned downloads."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, quote, urlsplit

import botocore.auth  # type: ignore[import-untyped] # -- has no types
import httpx
import pytest
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped] # -- has no types
from botocore.credentials import Credentials  # type: ignore[import-untyped] # -- has no types
from hypothesis import given
from hypothesis import strategies as st

from tequipy_devstack.proving.network import Link
from tequipy_platform import ObjectExists, ObjectNotFound, Unavailable, content_disposition
from tequipy_platform.storage import StorageSettings, build_storage
from tequipy_platform.storage.presigned import presign_get

from .s3_settings import ACCESS_KEY, SECRET_KEY, read, s3_settings
from .s3_stub import answer, serving
from .test_storage import PART, chunks

NOW = datetime(2013, 5, 24, tzinfo=UTC)


def stored_names(settings: StorageSettings) -> list[str]:
    """Return the names of all objects in the bucket."""
    listing = httpx.get(f"{settings.endpoint}/{settings.bucket}?list-type=2").text
    return sorted(part.partition("<")[0] for part in listing.split("<Key>")[1:])


def download(url: str) -> httpx.Response:
    """Return what a browser gets from a presigned URL."""
    return httpx.get(url)


def open_uploads(settings: StorageSettings) -> int:
    """Return the number of uploads in parts that were neither finished nor aborted."""
    return httpx.get(f"{settings.endpoint}/{settings.bucket}?uploads").text.count("<UploadId>")


async def test_objects_are_below_the_prefix(s3: StorageSettings) -> None:
    """An object's name in the bucket is prefix and key; its SHA-256 is beside it, and is deleted with it."""
    storage = build_storage(s3)
    await storage.put("reports/1", b"1")
    await storage.put("reports/2", chunks(2 * PART))
    assert stored_names(s3) == [
        "app/objects/.tequipy/sha256/reports/1",
        "app/objects/.tequipy/sha256/reports/2",
        "app/objects/reports/1",
        "app/objects/reports/2",
    ]
    await storage.delete("reports/1")
    await storage.delete("reports/2")
    assert stored_names(s3) == []


async def test_a_bucket_without_prefix(s3: StorageSettings) -> None:
    """Without a prefix in the URL the name in the bucket is the key, in presigned URLs too."""
    storage = build_storage(s3.model_copy(update={"url": f"s3://{s3.bucket}"}))
    await storage.put("a", b"1")
    url = await storage.presign("a", filename="a")
    assert url is not None
    assert download(url).content == b"1"
    assert stored_names(s3) == [".tequipy/sha256/a", "a"]


async def test_no_upload_stays_open(s3: StorageSettings) -> None:
    """A put that fails, is refused or cancelled aborts its upload in parts, which would be paid for otherwise."""
    storage = build_storage(s3)
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (3 * PART)
        reached.set()
        await asyncio.Event().wait()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (3 * PART)
        raise RuntimeError

    task = asyncio.create_task(storage.put("a", endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError):
        await storage.put("a", broken())
    results = await asyncio.gather(*(storage.put("a", chunks(2 * PART)) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, Exception)] == [ObjectExists]
    assert open_uploads(s3) == 0
    assert stored_names(s3) == ["app/objects/.tequipy/sha256/a", "app/objects/a"]


async def test_variables_of_aws_change_nothing(s3: StorageSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables for other AWS programs lead the storage neither to another server nor to another identity."""
    elsewhere = "http://127.0.0.1:9"
    for name, value in {
        "AWS_ENDPOINT": elsewhere,
        "AWS_ENDPOINT_URL": elsewhere,
        "AWS_ENDPOINT_URL_S3": elsewhere,
        "AWS_ACCESS_KEY_ID": "another",
        "AWS_SECRET_ACCESS_KEY": "another",
        "AWS_SESSION_TOKEN": "another",
        "AWS_BUCKET": "another",
        "AWS_REGION": "another",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_REQUEST_PAYER": "true",
        "AWS_S3_EXPRESS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    await build_storage(s3).put("a", b"1")
    assert await read(build_storage(s3), "a") == b"1"
    async with serving(answer("200 OK")) as stub:
        await build_storage(s3_settings(stub.address)).delete("a")
    for head in stub.requests:
        assert head.startswith("DELETE /bucket/app/objects/")
        assert f"Credential={ACCESS_KEY}/" in head
        assert "/eu-central-1/s3/aws4_request" in head
        assert "x-amz-security-token" not in head.lower()
        assert "x-amz-request-payer" not in head.lower()


async def test_a_missing_bucket_is_unavailable(s3_server: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bucket that does not exist is no missing object: each call but `head` raises `Unavailable`, and a log says why.

    The answer to HEAD has no body that would tell them apart.
    """
    storage = build_storage(s3_settings(s3_server, bucket="no-such-bucket"))
    with pytest.raises(Unavailable):
        await storage.put("a", b"1")
    with pytest.raises(Unavailable):
        await storage.put("a", chunks(2 * PART))
    with pytest.raises(Unavailable):
        await read(storage, "a")
    with pytest.raises(Unavailable):
        await storage.delete("a")
    with pytest.raises(Unavailable):
        await storage.ping()
    with pytest.raises(Unavailable):
        _ = [stored async for stored in storage.list()]
    with pytest.raises(ObjectNotFound):
        await storage.head("a")
    assert {getattr(record, "code", None) for record in caplog.records} == {"NoSuchBucket"}


class IgnoresConditions(Link):
    """A store that does not know `If-None-Match`, as some products."""

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.replace(b"if-none-match", b"x-none-matches"))
            await writer.drain()
        writer.close()


async def test_a_store_that_overwrites_is_never_ready(s3: StorageSettings, caplog: pytest.LogCaptureFixture) -> None:
    """`ping` fails for a store that ignores the condition of a put, because objects would be overwritten silently."""
    await build_storage(s3).ping()
    assert s3.endpoint is not None
    async with IgnoresConditions(int(s3.endpoint.rpartition(":")[2])) as link:
        storage = build_storage(s3.model_copy(update={"endpoint": f"http://127.0.0.1:{link.port}"}))
        with pytest.raises(Unavailable):
            await storage.ping()
    assert [record.message for record in caplog.records] == ["storage_overwrites"]


@pytest.mark.parametrize("filename", ["report.csv", 'Bericht "März"; 50%.csv', "レポート.pdf", "../../etc/passwd"])
async def test_a_presigned_url_downloads_under_its_name(s3: StorageSettings, filename: str) -> None:
    """A browser gets content, type and name from the presigned URL, which holds the lifetime and no secret key."""
    storage = build_storage(s3)
    content = chunks(PART + 1)
    stored = await storage.put("reports/1", content)
    url = await storage.presign(
        "reports/1", filename=filename, content_type="text/csv; charset=utf-8", expires_in=timedelta(minutes=10)
    )
    assert url is not None
    response = download(url)
    assert hashlib.sha256(response.content).hexdigest() == stored.sha256
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == content_disposition(filename)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["600"]
    assert SECRET_KEY not in url


def test_the_signature_of_the_documentation() -> None:
    """The example of AWS's documentation ("Authenticating Requests: Using Query Parameters") has its signature."""
    url = presign_get(
        "https://examplebucket.s3.amazonaws.com/test.txt",
        {},
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
        now=NOW,
        seconds=86400,
    )
    assert url.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


@given(
    path=st.from_regex(r"[A-Za-z0-9._-]{1,20}(/[A-Za-z0-9._ ~+=-]{1,20}){0,3}", fullmatch=True),
    filename=st.text(),
    port=st.sampled_from(["", ":9000"]),
)
def test_signatures_are_those_of_botocore(path: str, filename: str, port: str) -> None:
    """For any path and file name the URL has the parameters and the signature that AWS's own library makes."""
    parameters = {"response-content-disposition": content_disposition(filename), "response-content-type": "text/csv"}
    request = AWSRequest("GET", f"https://s3.example.com{port}/{quote(path)}", params=parameters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
        botocore.auth.S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "eu-central-1", 60).add_auth(request)
    url = presign_get(
        f"https://s3.example.com{port}/{path}",
        parameters,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="eu-central-1",
        now=NOW,
        seconds=60,
    )
    assert urlsplit(url)[:2] == urlsplit(request.url)[:2]
    assert parse_qs(urlsplit(url).query) == parse_qs(urlsplit(request.url).query)

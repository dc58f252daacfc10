"""Settings of the object storage."""

from typing import Any

import pytest
from pydantic import ValidationError

from tequipy_platform.storage import StorageSettings

KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "a-secret-value"}


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://my-bucket", "my-bucket", ""),
        ("s3://my-bucket/", "my-bucket", ""),
        ("s3://my.bucket/a/b", "my.bucket", "a/b"),
        ("s3://my-bucket/a/", "my-bucket", "a"),
        ("file:///var/objects", None, "var/objects"),
        ("memory://", None, ""),
    ],
)
def test_locations(url: str, bucket: str | None, prefix: str) -> None:
    """A URL names bucket and prefix, a folder, or memory."""
    settings = StorageSettings.model_validate({"url": url, **KEYS})
    assert (settings.bucket, settings.prefix) == (bucket, prefix)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"url": "s3://"}, "url"),
        ({"url": "s3://ab"}, "url"),
        ({"url": "s3://Bucket"}, "url"),
        ({"url": "s3://user:a-secret-value@bucket"}, "url"),
        ({"url": "s3://bucket/a b"}, "url"),
        ({"url": "s3://bucket/../b"}, "url"),
        ({"url": "s3://bucket//a"}, "url"),
        ({"url": "s3://bucket/a?b"}, "url"),
        ({"url": "s3://bucket/" + "a/" * 101}, "url"),
        ({"url": "s3:bucket"}, "url"),
        ({"url": "s3://[bucket"}, "url"),
        ({"url": "file://host/a"}, "url"),
        ({"url": "file:relative"}, "url"),
        ({"url": "memory:///"}, "url"),
        ({"endpoint": "s3.example.com"}, "endpoint"),
        ({"endpoint": "ftp://s3.example.com"}, "endpoint"),
        ({"endpoint": "https://"}, "endpoint"),
        ({"endpoint": "https://s3.example.com/bucket"}, "endpoint"),
        ({"endpoint": "https://s3.example.com?a=a-secret-value"}, "endpoint"),
        ({"endpoint": "https://user:a-secret-value@s3.example.com"}, "endpoint"),
        ({"endpoint": "https://s3.example.com:port"}, "endpoint"),
        ({"endpoint": "https://[::1"}, "endpoint"),
        ({"endpoint": "https://s3 example.com"}, "endpoint"),
        ({"endpoint": "https://s3.example.com#a-secret-value"}, "endpoint"),
        ({"region": "EU (Frankfurt)"}, "region"),
        ({"secret_access_key": "a-secret-value\n"}, "secret_access_key"),
        ({"access_key_id": ""}, "access_key_id"),
        ({"timeout": 0}, "timeout"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], field: str) -> None:
    """Each wrong value is one fault of its field, whose text shows no secret."""
    with pytest.raises(ValidationError) as refused:
        StorageSettings.model_validate({"url": "s3://bucket/prefix", **KEYS, **values})
    assert [fault["loc"] for fault in refused.value.errors()] == [(field,)]
    assert "a-secret-value" not in str(refused.value)


def test_the_server_is_that_of_the_region_by_default() -> None:
    """Without an endpoint the server is AWS in the region; a slash after the endpoint is no path."""
    settings = StorageSettings.model_validate({"url": "s3://bucket", "region": "eu-central-1", **KEYS})
    assert settings.server == "https://s3.eu-central-1.amazonaws.com"
    settings = StorageSettings.model_validate({"url": "s3://bucket", "endpoint": "https://s3.example.com/", **KEYS})
    assert settings.server == "https://s3.example.com"


@pytest.mark.parametrize(
    ("endpoint", "server"),
    [
        ("https://s3.example.com:443", "https://s3.example.com"),
        ("http://minio:80/", "http://minio"),
        ("http://minio:443", "http://minio:443"),
        ("HTTPS://S3.Example.com", "https://s3.example.com"),
        ("https://[::1]:9000", "https://[::1]:9000"),
    ],
)
def test_the_server_is_named_as_clients_name_it(endpoint: str, server: str) -> None:
    """Names are in lower case and without the usual port, because presigned URLs sign what clients send as Host."""
    settings = StorageSettings.model_validate({"url": "s3://bucket", "endpoint": endpoint, **KEYS})
    assert settings.server == server


def test_credentials_are_required_whatever_the_case_of_the_scheme() -> None:
    """`S3://bucket` is S3 too, and needs its credentials at the start and not at the first put."""
    with pytest.raises(ValidationError) as refused:
        StorageSettings.model_validate({"url": "S3://bucket"})
    assert [fault["loc"] for fault in refused.value.errors()] == [("access_key_id",), ("secret_access_key",)]


def test_credentials_are_masked() -> None:
    """Neither the settings nor their dump as text shows the credentials."""
    settings = StorageSettings.model_validate({"url": "s3://bucket", **KEYS})
    assert not any(secret in f"{settings!r} {settings.model_dump_json()}" for secret in KEYS.values())

"""Settings for a server of S3 in tests, and the reading of whole objects."""

from pydantic import SecretStr

from tequipy_platform import ObjectStorage
from tequipy_platform.storage import StorageSettings

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def s3_settings(
    server: str, *, bucket: str = "bucket", prefix: str = "app/objects", timeout: float = 30
) -> StorageSettings:
    """Return the settings of a bucket on a server, without a region's defaults."""
    return StorageSettings(
        url=f"s3://{bucket}/{prefix}",
        endpoint=server,
        region="eu-central-1",
        access_key_id=SecretStr(ACCESS_KEY),
        secret_access_key=SecretStr(SECRET_KEY),
        timeout=timeout,
    )


async def read(storage: ObjectStorage, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes of an object."""
    return b"".join([chunk async for chunk in storage.get(key, start=start, stop=stop)])

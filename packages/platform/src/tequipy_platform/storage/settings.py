"""Settings of the object storage."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from tequipy_platform._storage import check_key

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_PREFIX: Final = 200  # S3 allows names of 1,024 bytes, and keys have 512
_REGION: Final = re.compile(r"[a-z0-9-]{1,63}")


class StorageSettings(BaseModel):
    """The location of the object storage, and the credentials of S3."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    production_rules: ClassVar[Mapping[str, str]] = {
        "url": "memory:// is refused in production: it ends with the process",
        "endpoint": "should begin with https:// in production: anybody on the way reads the objects",
    }

    url: str = "file:///var/lib/tequipy/objects"
    """`s3://bucket` or `s3://bucket/prefix`; `file:///absolute/folder` (created if it is missing); or `memory://`,
    whose content is lost with the process."""
    endpoint: str | None = None
    """The server of `s3://`, as `https://minio.example.com`; None: AWS in the region. The addresses of presigned
    downloads begin with it, so clients must reach it too."""
    region: str = "us-east-1"
    """The region of the bucket; other products than AWS often ignore it."""
    access_key_id: SecretStr | None = Field(default=None, validate_default=True)
    """The id of the access key; required for `s3://`."""
    secret_access_key: SecretStr | None = Field(default=None, validate_default=True)
    """The secret of the access key; required for `s3://`."""
    timeout: float = Field(default=30, gt=0, le=600)
    """Seconds in which S3 must answer a request or send the next bytes. A request that fails is tried again, unless so
    many seconds have passed since its first attempt. A put of many parts has three requests that can fail: one of its
    own, and two that remove what it has left."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, text: str) -> str:
        url = _split(text)
        if url.scheme == "s3":
            _check_bucket(url.netloc, url.path.removeprefix("/"))
            if url.query or url.fragment:
                raise PydanticCustomError("url", "should be s3://bucket/prefix")
        elif text != "memory://" and not (url.scheme == "file" and not url.netloc and url.path.startswith("/")):
            raise PydanticCustomError(
                "url_scheme", "should be s3://bucket/prefix, file:///absolute/folder or memory://"
            )
        return text

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            url = AnyHttpUrl(text)
        except ValidationError:
            url = None
        if url is None or url.path != "/" or url.query or url.fragment or url.username or url.password:
            raise PydanticCustomError("url", "should be as https://s3.example.com, without path and user")
        # As clients send it in Host, which presigned URLs sign: in lower case, without the usual port of the scheme.
        return str(url).removesuffix("/")

    @field_validator("region")
    @classmethod
    def _check_region(cls, text: str) -> str:
        if not _REGION.fullmatch(text):
            raise PydanticCustomError("region", "should be a region as eu-central-1")
        return text

    @field_validator("access_key_id", "secret_access_key")
    @classmethod
    def _check_credential(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and urlsplit(info.data.get("url", "")).scheme == "s3":
            raise PydanticCustomError("credential", "is required for s3://")
        if secret is not None and not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
            raise PydanticCustomError("credential", "should be printable ASCII without spaces")
        return secret

    def production_faults(self) -> list[tuple[str, str]]:
        """Refuse in production a storage that does not survive the process, and objects on the network in clear."""
        if self.in_memory:
            return [("url", self.production_rules["url"])]
        if self.bucket and self.server.startswith("http://"):
            return [("endpoint", self.production_rules["endpoint"])]
        return []

    @property
    def in_memory(self) -> bool:
        """Whether objects are lost when the process ends."""
        return self.url == "memory://"

    @property
    def bucket(self) -> str | None:
        """The bucket of S3, or None."""
        url = urlsplit(self.url)
        return url.netloc if url.scheme == "s3" else None

    @property
    def folder(self) -> Path | None:
        """The local folder, or None."""
        url = urlsplit(self.url)
        return Path(url2pathname(url.path)) if url.scheme == "file" else None

    @property
    def prefix(self) -> str:
        """The prefix in the bucket, without slashes around it."""
        return urlsplit(self.url).path.strip("/")

    @property
    def server(self) -> str:
        """The address of the S3 server."""
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"


def _split(text: str) -> SplitResult:
    """Return the parts of a URL, empty ones if it is malformed."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return urlsplit("")
    return url


def _check_bucket(bucket: str, prefix: str) -> None:
    if not _BUCKET.fullmatch(bucket):
        raise PydanticCustomError("bucket", "should be s3://bucket/prefix: a bucket has 3 to 63 letters a-z and digits")
    if prefix:
        try:
            check_key(prefix.removesuffix("/"))
        except ValueError:
            raise PydanticCustomError("prefix", "should be s3://bucket/prefix of letters, digits, _, - and .") from None
    if len(prefix) > _LONGEST_PREFIX:
        raise PydanticCustomError("prefix", "should be a prefix of 200 characters at most")

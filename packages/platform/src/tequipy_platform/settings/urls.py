"""URLs in settings."""

from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, AnyHttpUrl, SecretStr, ValidationError
from pydantic_core import PydanticCustomError


def _public_url(text: str) -> str:
    try:
        url = AnyHttpUrl(text)
    except ValidationError as error:
        raise PydanticCustomError("url", "should be a URL as https://app.example.com") from error
    if url.query or url.fragment or url.username or url.password:
        raise PydanticCustomError("url", "should be a URL without credentials, query and fragment")
    return str(url).rstrip("/")


PublicUrl = Annotated[str, AfterValidator(_public_url)]
"""An http or https URL without a trailing slash."""


def split_url(secret: SecretStr) -> SplitResult:
    """Return the parts of a URL that may hold a password; the error for an invalid port never quotes the URL."""
    try:
        parts = urlsplit(secret.get_secret_value())
        _ = parts.port  # a / in a password ends the host part early, and the rest is no number
    except ValueError:
        raise PydanticCustomError(
            "url", "user and password should be percent-encoded (/ as %2F, @ as %40), the port at most 65535"
        ) from None
    return parts

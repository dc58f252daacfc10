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


def _origins(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(_origin(text) for text in texts))
    except ValueError as error:
        raise PydanticCustomError(
            "origin", "should be origins as https://app.example.com, without a path, never *"
        ) from error


def _origin(text: str) -> str:
    # Parsers of URLs also accept `https:example.com` and `%2A`. `*` is refused in each place: with credentials it would
    # give every page access to every account.
    _, separator, rest = text.partition("://")
    if not separator or set("/?#@*%\\") & set(rest):
        raise ValueError(text)
    return origin_of(text)


def origin_of(url: str) -> str:
    """Return the origin of an http or https URL in the spelling of browsers (RFC 6454, section 6.2)."""
    parts = urlsplit(str(AnyHttpUrl(url)))  # lower case, punycode, without the scheme's default port
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


Origins = Annotated[tuple[str, ...], AfterValidator(_origins)]
"""Origins in the spelling of browsers (RFC 6454), each once: upper case and a scheme's own port are normalised."""


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

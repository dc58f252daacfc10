"""The stores of obstore, by the settings."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from obstore.store import LocalStore, MemoryStore, S3Store

from tequipy_platform.storage.settings import StorageSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Credential

Store = LocalStore | MemoryStore | S3Store

_CONNECT_SECONDS: Final = 5
_LONGEST_REQUEST: Final = timedelta(days=1)
"""Downloads to slow clients take long; what stands still is ended by the timeout of each read."""


def open_store(settings: StorageSettings, *, read_timeout: float | None = None) -> Store:
    """Return the store; `read_timeout` replaces the time in which S3 must answer."""
    if settings.in_memory:
        return MemoryStore()
    if settings.bucket is None:
        # Without the clean-up of empty folders, which fails a put that is about to write into one.
        return LocalStore.from_url(settings.url, mkdir=True)
    seconds = settings.timeout if read_timeout is None else read_timeout
    client: ClientConfig = {
        "allow_http": settings.server.startswith("http://"),
        "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, settings.timeout)),
        "read_timeout": timedelta(seconds=seconds),
        "timeout": _LONGEST_REQUEST,
    }
    retries: RetryConfig = {
        "max_retries": 3,
        "retry_timeout": timedelta(seconds=settings.timeout),
        "backoff": {
            "init_backoff": timedelta(seconds=0.1),
            "max_backoff": timedelta(seconds=min(2, settings.timeout)),
            "base": 2,
        },
    }
    # obstore reads AWS_* variables of the process for all that is not given here.
    return S3Store(
        settings.bucket,
        prefix=settings.prefix or None,
        aws_endpoint_url_s3=settings.server,
        region=settings.region,
        credential_provider=_Credentials(settings),
        virtual_hosted_style_request=False,
        skip_signature=False,
        s3_express=False,
        request_payer=False,
        conditional_put="etag",
        copy_if_not_exists="multipart",
        disable_bulk_delete=True,
        client_options=client,
        retry_config=retries,
    )


class _Credentials:
    """Gives obstore the credentials of the settings; its own configuration would show them in its repr."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings

    def __call__(self) -> "S3Credential":
        access_key_id, secret = self._settings.access_key_id, self._settings.secret_access_key
        if access_key_id is None or secret is None:
            raise ValueError("S3 needs access_key_id and secret_access_key")  # the settings require them
        return {
            "access_key_id": access_key_id.get_secret_value(),
            "secret_access_key": secret.get_secret_value(),
            "token": None,
            "expires_at": None,
        }

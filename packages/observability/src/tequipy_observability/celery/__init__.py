"""Observability for Celery apps: logs, request context and metrics. Needs the extra `celery`."""

try:
    import celery  # noqa: F401 -- imported here, so that the error names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tequipy_observability.celery needs Celery: install tequipy-observability[celery]"
    ) from error

from tequipy_observability.celery.wire import wire_observability

__all__ = ["wire_observability"]

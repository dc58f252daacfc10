"""The door for a Celery app: logs, context and metrics as in every other process. Needs the extra `celery`."""

try:
    import celery  # noqa: F401 -- asked for here, so that the answer names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "tequipy_observability.celery needs Celery: install tequipy-observability[celery]"
    ) from error

from tequipy_observability.celery.wire import wire_observability

__all__ = ["wire_observability"]

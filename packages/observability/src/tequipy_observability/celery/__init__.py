"""Observability for Celery apps: logs, request context and metrics. Needs the extra `celery`."""

from tequipy_observability import needs_extra

with needs_extra("tequipy-observability[celery]"):
    from tequipy_observability.celery.wire import wire_observability

__all__ = ["wire_observability"]

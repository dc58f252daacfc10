"""The door for a FastAPI app: correlation, the access event, HTTP metrics and `GET /metrics`."""

from tequipy_observability.api.wire import TwoAuthorizations, wire_observability

__all__ = ["TwoAuthorizations", "wire_observability"]

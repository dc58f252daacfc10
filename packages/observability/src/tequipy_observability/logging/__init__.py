"""Structured logs of a process, with redaction of secrets."""

from tequipy_observability.logging.access import AccessLog
from tequipy_observability.logging.configuration import access_log, configure_logging
from tequipy_observability.logging.rendering import Process

__all__ = ["AccessLog", "Process", "access_log", "configure_logging"]

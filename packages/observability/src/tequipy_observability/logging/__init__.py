"""Structured logs of a process, with redaction of secrets."""

from tequipy_observability.logging.configuration import Process, configure_logging

__all__ = ["Process", "configure_logging"]

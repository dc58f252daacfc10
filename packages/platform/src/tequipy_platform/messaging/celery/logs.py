"""Celery's log records about attempts that `Deliveries` logs itself, with their context."""

import logging
from typing import Final

from celery.app import trace

_LOGGERS: Final = ("celery.worker.strategy", "celery.app.trace")
_REPEATED: Final = frozenset(
    text.strip()
    for text in (trace.LOG_RECEIVED, trace.LOG_SUCCESS, trace.LOG_RETRY, trace.LOG_IGNORED, trace.LOG_REJECTED)
)
_FAILED: Final = trace.LOG_FAILURE.strip()


def drop_repeated_records(failure: type[Exception]) -> None:
    """Drop Celery's records of attempts with an ordinary outcome, and of those that ended by `failure`.

    Any other error of an attempt is a fault of Celery or of this adapter, of which nothing else is logged.
    """
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _DropRepeated) for known in logger.filters):
            logger.addFilter(_DropRepeated(failure))


class _DropRepeated(logging.Filter):
    def __init__(self, failure: type[Exception]) -> None:
        super().__init__()
        self._failure = failure

    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg).strip()
        if text == _FAILED:
            return not (record.exc_info and isinstance(record.exc_info[1], self._failure))
        return text not in _REPEATED

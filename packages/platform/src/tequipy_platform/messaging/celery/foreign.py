"""Bodies in a queue that are no messages of ours: they reach a child process as messages of two catch-all tasks.

kombu and Celery expect well-formed messages: many others end the worker, or are put back for ever.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID, uuid4

from kombu.utils.json import loads

from tequipy_observability import TRACE_HEADER, redacted
from tequipy_platform.messaging.celery.tasks import UNKNOWN_TASK
from tequipy_platform.messaging.message_log import FOREIGN_TASK

UNKNOWN_HEADER: Final = "tequipy_unknown_task"
"""The name of the task that is not known."""
MAX_BODY_BYTES: Final = 256 * 1024
"""A longer body is foreign: a payload of 64 KiB has at most 90 KiB here."""
MAX_TEXT: Final = 1000
"""The longest text that a dead letter keeps."""
_MAX_HEADER: Final = 1024
_SHOWN: Final = 4096
_HEADERS: Final = frozenset({"lang", "task", "id", TRACE_HEADER})
"""Headers that are kept beside ours. Others of Celery's could drop the message (`expires`) or end the worker."""
_OUR_HEADERS: Final = "tequipy_"
_MAX_NAME: Final = 255
_CODED: Final = re.compile(r"[\w+/=-]{64,}")


class ForeignMessageError(ValueError):
    """A body is no message of ours; the text says why and quotes nothing of it."""


def readable_item(item: bytes, queue: str) -> bytes:
    """Return an item of a Redis list unchanged if kombu can read it, otherwise a message of the catch-all task."""
    try:
        _check_item(item, queue)
    except ForeignMessageError as error:
        return _envelope(_describe(str(error), item, _shown_item(item)), queue)
    return item


def accept_message(message: Any, known: Collection[str]) -> None:  # noqa: ANN401 -- a kombu Message; its stubs have other types
    """Turn a received message into one that Celery can handle: headers other than ours are dropped.

    A message for a task that is not `known` becomes one of the task `UNKNOWN_TASK` under the same id, and a message
    that is not ours one of `FOREIGN_TASK`. The message can be acknowledged and returned to the queue as before.
    """
    try:
        _check_message(message)
    except ForeignMessageError as error:
        body = _as_bytes(message.body)
        text = _describe(str(error), body, _shown_message(message, body))
        message.headers, message.body = _headers(), _body(text)
        message.content_type, message.content_encoding = "application/json", "utf-8"
    else:
        message.headers = {name: value for name, value in message.headers.items() if _is_kept(name, value)}
        if message.headers["task"] not in known:
            message.headers |= {"task": UNKNOWN_TASK, UNKNOWN_HEADER: message.headers["task"]}
    message.errors = []
    message._decoded_cache = None  # noqa: SLF001 -- the decoded body that kombu keeps


def _check_item(item: bytes, queue: str) -> None:
    """Raise `ForeignMessageError` unless kombu can construct, keep and restore a message from the item."""
    if len(item) > MAX_BODY_BYTES:
        raise ForeignMessageError("too long")
    envelope = _loaded(item)
    if not isinstance(envelope, dict):
        raise ForeignMessageError("no JSON object")
    properties, headers, body = (envelope.get(name) for name in ("properties", "headers", "body"))
    if not isinstance(properties, dict) or not isinstance(headers, dict):
        raise ForeignMessageError("without properties or headers")
    delivery = properties.get("delivery_info")
    # kombu restores a message by its own route, and would lose one that leads nowhere.
    if not isinstance(delivery, dict) or (delivery.get("exchange"), delivery.get("routing_key")) != ("", queue):
        raise ForeignMessageError("not addressed to this queue")
    if not isinstance(properties.get("delivery_tag"), str):
        raise ForeignMessageError("without a delivery tag")
    if not isinstance(body, str) or properties.get("body_encoding") != "base64":
        raise ForeignMessageError("with a body that is not base64")
    try:
        base64.b64decode(body, validate=True)
    except ValueError:
        raise ForeignMessageError("with a body that is not base64") from None
    _check_compression(headers)


def _check_message(message: Any) -> None:  # noqa: ANN401 -- as above
    """Raise `ForeignMessageError` unless the message has a task, a UUID and a body in Celery's format."""
    headers = message.headers
    if not isinstance(headers, dict):
        raise ForeignMessageError("without headers")
    _check_compression(headers)
    task, task_id, body = headers.get("task"), headers.get("id"), _as_bytes(message.body)
    if not isinstance(task, str) or not 0 < len(task) <= _MAX_NAME:
        raise ForeignMessageError("without a task")
    if not _is_uuid(task_id):
        raise ForeignMessageError("with an id that is no UUID")
    if message.content_type != "application/json" or str(message.content_encoding).lower() != "utf-8":
        raise ForeignMessageError("of another type or encoding than JSON in UTF-8")
    if message.errors:
        raise ForeignMessageError("not decoded by kombu")
    if len(body) > MAX_BODY_BYTES:
        raise ForeignMessageError("too long")
    match _loaded(body):
        case [list(), dict(), dict() as embedded] if not any(embedded.values()):
            return
    raise ForeignMessageError("not a list of arguments, keyword arguments and nothing else")


def _check_compression(headers: Mapping[str, object]) -> None:
    if headers.get("compression"):  # a small body could expand to gigabytes
        raise ForeignMessageError("compressed")


def _loaded(text: bytes) -> object:
    try:
        return loads(text)  # as kombu does, which may raise any error for its tagged types
    except Exception:  # noqa: BLE001 -- too deep, no UTF-8, or no JSON: the reason does not matter
        raise ForeignMessageError("no JSON") from None


def _is_uuid(text: object) -> bool:
    try:
        return isinstance(text, str) and str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _is_kept(name: object, value: object) -> bool:
    if not isinstance(name, str) or not (name in _HEADERS or name.startswith(_OUR_HEADERS)):
        return False
    return len(value) <= _MAX_HEADER if isinstance(value, str) else isinstance(value, int | float | None)


def _as_bytes(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8", "backslashreplace")
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else b""


def _headers() -> dict[str, object]:
    return {"lang": "py", "task": FOREIGN_TASK, "id": str(uuid4())}


def _body(text: str) -> bytes:
    return json.dumps([[], {"text": text}, {}]).encode()


def _envelope(text: str, queue: str) -> bytes:
    """Return a message of the catch-all task as kombu stores it in Redis."""
    headers = _headers()
    properties = {
        "correlation_id": headers["id"],
        "delivery_info": {"exchange": "", "routing_key": queue},  # by which it returns to its queue
        "delivery_mode": 2,
        "delivery_tag": str(uuid4()),
        "body_encoding": "base64",
        "priority": 0,
    }
    return json.dumps(
        {
            "body": base64.b64encode(_body(text)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    ).encode()


def _describe(fault: str, body: bytes, shown: object) -> str:
    """Return a text of at most `MAX_TEXT` characters in ASCII that holds no secret."""
    digest = hashlib.sha256(body).hexdigest()[:16]
    text = f"foreign body, {fault}; {len(body):,} bytes, SHA-256 {digest}: {redacted(shown)}"
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def _shown_item(item: bytes) -> object:
    """Return the item for people: secrets are found in the parsed JSON, and in the body that is base64 there."""
    shown = _shown(item)
    if isinstance(shown, dict) and isinstance(body := shown.get("body"), str):
        with suppress(ValueError):
            shown["body"] = _shown(base64.b64decode(body, validate=True))
    return shown


def _shown_message(message: Any, body: bytes) -> object:  # noqa: ANN401 -- as above
    return {
        "headers": message.headers,
        "content-type": message.content_type,
        "content-encoding": message.content_encoding,
        "body": _shown(body),
    }


def _shown(body: bytes) -> object:
    """Return a body as parsed JSON if it is some, otherwise its beginning as text."""
    try:
        return json.loads(body[: MAX_BODY_BYTES + 1])
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        text = body[:_SHOWN].decode("utf-8", "backslashreplace")
        # Redaction knows names before `: `, and nothing of what base64 hides.
        return _CODED.sub("[...]", text).replace('":', '": ')

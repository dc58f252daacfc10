"""Values as bytes: JSON by pydantic, in an envelope."""

import json
from typing import Generic, NamedTuple, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError

from tequipy_caching.infrastructure.envelope import digest, seal, unseal

V = TypeVar("V")

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")


class Decoded(NamedTuple, Generic[V]):
    """A value from Redis."""

    value: V
    tail: int
    """Milliseconds that Redis keeps it beyond its life."""


class Codec(Generic[V]):
    """Encodes the values of one type. Raises `TypeError` for a type that JSON does not carry there and back."""

    def __init__(self, type_: type[V], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        try:
            self._adapter = _adapter(type_)
            schemas = [self._adapter.json_schema(mode=mode) for mode in ("validation", "serialization")]
        except PydanticUserError as error:
            raise TypeError(
                f"{type_!r} has no JSON form, cache a model, a dataclass or plain data: {error.message}"
            ) from error
        shape = json.dumps(schemas, sort_keys=True)
        if '"writeOnly": true' in shape:
            raise TypeError(f"{type_!r} holds a secret, which JSON masks: cache a type without it")
        self._fingerprint = digest(shape.encode())

    def encode(self, key: str, value: V, *, tail: int) -> bytes:
        """Return the bytes; raises `TypeError` for a value that is not of the cache's type."""
        try:
            body = self._adapter.dump_json(value, round_trip=True, warnings="error")
        except PydanticSerializationError as error:
            raise TypeError(f"this {type(value).__name__} cannot be encoded as the cache's type: {error}") from None
        return seal(self._fingerprint, key, body, tail=tail)

    def decode(self, key: str, sealed: bytes) -> Decoded[V]:
        """Return the value; raises `ValueError` for what is damaged, too large, of another key or of another shape."""
        opened = unseal(self._fingerprint, key, sealed)
        if len(opened.body) > self._max_bytes:
            raise ValueError("too large")
        value = self._adapter.validate_json(opened.body, by_alias=False, by_name=True)  # its error is a ValueError too
        return Decoded(value, opened.tail)


def _adapter(type_: type[V]) -> TypeAdapter[V]:
    try:
        return TypeAdapter(type_, config=_CONFIG)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(type_)  # a model or dataclass: it has a configuration of its own

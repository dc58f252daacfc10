"""The codec of one type: values as JSON by pydantic, in an envelope."""

import json
import re
from collections import Counter
from typing import Any, Final, Generic, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from tequipy_caching.redis.envelope import EntryParts, decode_entry, digest, encode_envelope
from tequipy_caching.redis.round_trip import difference

V = TypeVar("V")

_SHOWN_VALUE: Final = re.compile("input_value=.*(?=input_type=)")
"""The part of a pydantic error line that shows the value, which may be a secret."""
_LARGE: Final = 65_536
"""Bytes above which only the first `_FIRST` values of each type are decoded again to check them."""
_FIRST: Final = 32
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")


class Codec(Generic[V]):
    """Encodes and decodes values of one type. Raises `TypeError` for a type that JSON cannot represent without loss.

    `parse` checks an entry and `decode` decodes its value, separately, because stale values are seldom decoded.
    """

    def __init__(self, type_: Any, max_bytes: int) -> None:  # noqa: ANN401 -- types, unions and special forms
        self._max_bytes = max_bytes
        self._large_values: Counter[type] = Counter()
        """How many large values of each type have been encoded."""
        try:
            self._adapter: TypeAdapter[V] = _adapter(type_)
            schemas = [self._adapter.json_schema(mode=mode) for mode in ("validation", "serialization")]
        except PydanticUserError as error:
            raise TypeError(
                f"{type_!r} has no JSON form, cache a model, a dataclass or plain data: {error.message}"
            ) from error
        schema = json.dumps(schemas, sort_keys=True)
        if '"writeOnly": true' in schema:
            raise TypeError(f"{type_!r} holds a secret, which JSON masks: cache a type without it")
        self.fingerprint = digest(schema.encode())
        self._validate = self._adapter.validator.validate_json  # faster than the adapter's method

    def encode(self, key: str, value: V, *, ttl: int, tail: int) -> bytes:
        """Return the envelope of a value; raise `TypeError` if the value would not be read back as it is.

        `ttl` and `tail` are those of `encode_envelope`.
        """
        try:
            body = self._adapter.dump_json(value, round_trip=True, warnings="error")
        except PydanticSerializationError as error:
            why = _SHOWN_VALUE.sub("", str(error))
            raise TypeError(f"this {type(value).__name__} cannot be encoded as the cache's type: {why}") from None
        if len(body) <= self._max_bytes and self._to_be_checked(value, len(body)):
            self._check(value, body)
        return encode_envelope(self.fingerprint, key, body, ttl=ttl, tail=tail)

    def parse(self, key: str, data: bytes) -> EntryParts:
        """Return the parts of an entry in Redis.

        Raises `ValueError` for an entry that is damaged, too large, or of another key or schema.
        """
        parts = decode_entry(self.fingerprint, key, data)
        if len(parts[-1]) > self._max_bytes:
            raise ValueError("too large")
        return parts

    def decode(self, body: bytes) -> V:
        """Return the value; raise `ValueError` for bytes that are not a value of this type."""
        value: V = self._validate(body, by_alias=False, by_name=True)  # its error is a ValueError too
        return value

    def _to_be_checked(self, value: V, size: int) -> bool:
        """Return whether to decode an encoded value again; doing this for all large values would block the loop."""
        if size <= _LARGE:
            return True
        self._large_values[type(value)] += 1
        return self._large_values[type(value)] <= _FIRST

    def _check(self, value: V, body: bytes) -> None:
        """Raise `TypeError` if other processes would read a different value: a missing field, or a base class."""
        try:
            why = difference(value, self.decode(body))
        except Exception as error:  # noqa: BLE001 -- the validators of the type may raise anything
            reasons = [each["type"] for each in error.errors()] if isinstance(error, ValidationError) else []
            why = f"it cannot be read back: {', '.join(reasons) or type(error).__name__}"
        if why is not None:
            raise TypeError(f"this {type(value).__name__} would be read back from the cache differently: {why}")


def _adapter(type_: Any) -> TypeAdapter[Any]:  # noqa: ANN401 -- as above
    try:
        return TypeAdapter(type_, config=_CONFIG)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(type_)  # a model or dataclass has its own configuration

"""The base class of request bodies, and types of their fields and of parameters."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
"""NUL, which PostgreSQL cannot store, and lone surrogates, which UTF-8 cannot encode."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise PydanticCustomError("datetime_out_of_range", "The time is not between the years 1 and 9999.") from error


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with an offset from UTC, converted to UTC; one that has no equivalent in UTC is refused.

A database driver fails for such a time (the first hours of the year 1 with a positive offset).
"""


class StrictModel(BaseModel):
    """A frozen request body that refuses unknown fields, NUL and lone surrogates in strings, NaN and infinity.

    Its errors never show the input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unstorable(cls, data: Any) -> Any:  # noqa: ANN401 -- any JSON
        faults = [
            InitErrorDetails(
                type=PydanticCustomError("invalid_characters", "The text holds NUL or half a character."),
                loc=cls._known(path),
                input=None,
            )
            for path in _unstorable(data)
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults, hide_input=True)
        return data

    @classmethod
    def _known(cls, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Return the part of a path that consists of this model's field and list indexes; other names were sent."""
        names = {field.alias or name for name, field in cls.model_fields.items()}
        if not path or path[0] not in names:
            return ()
        return (path[0], *takewhile(lambda step: isinstance(step, int), path[1:]))


def _unstorable(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unstorable(item, (*path, index))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unstorable(name, path)
            yield from _unstorable(item, (*path, name))

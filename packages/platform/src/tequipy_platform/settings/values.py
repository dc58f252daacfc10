"""Values of settings as text, in the form in which a variable is set."""

import json
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import to_jsonable_python


def text_of(value: object) -> str:
    """Return a value as its variable would be set; secrets become `**********`."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.15g}"
    if isinstance(value, str | SecretStr | Path):
        return str(value)
    return json.dumps(to_jsonable_python(value))  # pydantic masks a SecretStr inside

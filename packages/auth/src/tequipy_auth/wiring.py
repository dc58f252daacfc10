"""`AuthSettings`, and `build_auth`, which builds auth's services on PostgreSQL.

Only apps fill the settings from the environment. The libraries that the services need are imported with `build_auth`,
because some processes only read the settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tequipy_auth.infrastructure.settings import SCHEMA, AuthSettings

if TYPE_CHECKING:
    from tequipy_auth.infrastructure.assembly import build_auth
else:

    def __getattr__(name: str) -> object:
        if name == "build_auth":
            return import_module("tequipy_auth.infrastructure.assembly").build_auth
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SCHEMA", "AuthSettings", "build_auth"]

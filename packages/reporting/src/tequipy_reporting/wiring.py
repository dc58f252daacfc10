"""`ReportingSettings`, and `build_reporting`, which builds reporting's services on PostgreSQL.

Only apps fill the settings from the environment. The libraries that the services need are imported with the functions,
because some processes only read the settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tequipy_reporting.infrastructure.settings import SCHEMA, ReportingSettings

if TYPE_CHECKING:
    from tequipy_reporting.infrastructure.assembly import build_personal_data, build_reporting, build_writers
    from tequipy_reporting.infrastructure.gauges import build_gauges
else:

    def __getattr__(name: str) -> object:
        if name in __all__:
            module = "gauges" if name == "build_gauges" else "assembly"
            return getattr(import_module(f"tequipy_reporting.infrastructure.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SCHEMA", "ReportingSettings", "build_gauges", "build_personal_data", "build_reporting", "build_writers"]

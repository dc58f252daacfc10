"""The permissions that reporting declares."""

from typing import Final

from tequipy_auth import Permission

REPORTS_READ: Final = Permission("reports:read", "See and download all reports.", roles=("support",))
REPORTS_WRITE: Final = Permission("reports:write", "Request, cancel and delete reports.")

PERMISSIONS: Final = (REPORTS_READ, REPORTS_WRITE)
"""What an app passes to `build_auth`, so that roles can have these permissions."""

"""What the features declare and the API collects, besides the migrations in `histories`, which need Alembic."""

from typing import Final

from tequipy_auth import Permission
from tequipy_reporting import PERMISSIONS as REPORTING

PERMISSIONS: Final[tuple[Permission, ...]] = (*REPORTING,)
"""The permissions of all features but auth, which adds its own."""

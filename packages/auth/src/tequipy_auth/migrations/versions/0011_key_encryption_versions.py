"""Add the version of the key-encryption key to signing keys, and erase the private keys of revoked ones.

Keys without a version are rejected until `KeyService.reencrypt` encrypts them again, now with an authenticated
public key. After the downgrade the older code cannot decrypt keys that were encrypted again: revoke them with it, the
next key first.
"""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.database.migrations import schema_name

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and erase the private keys of revoked keys."""
    op.add_column("signing_keys", sa.Column("encryption_version", sa.Integer()), schema=schema_name())
    op.execute(f"update \"{schema_name()}\".signing_keys set private_key = '' where state = 'revoked'")


def downgrade() -> None:
    """Drop the column; erased private keys stay erased."""
    op.drop_column("signing_keys", "encryption_version", schema=schema_name())

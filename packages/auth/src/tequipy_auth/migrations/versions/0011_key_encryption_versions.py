"""Which key-encryption key a signing key is encrypted under; a revoked key's private half is erased.

Keys without a version are not believed any more: `tequipy-api keys reseal` encrypts them anew, their public half with
them. The downgrade leaves keys that the older code cannot decrypt: revoke them with it, the next one first.
"""

import sqlalchemy as sa
from alembic import op

from tequipy_platform.migrations import schema_name

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("signing_keys", sa.Column("encryption_version", sa.Integer()), schema=schema_name())
    op.execute(f"update \"{schema_name()}\".signing_keys set private_key = '' where state = 'revoked'")


def downgrade() -> None:
    op.drop_column("signing_keys", "encryption_version", schema=schema_name())

"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
from tequipy_platform.database.migrations import schema_name

revision = "${up_revision}"
down_revision = ${'"' + down_revision + '"' if down_revision else None}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}

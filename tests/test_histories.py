"""The migration histories of all packages."""

import io

import pytest
from alembic.script import ScriptDirectory

from tequipy_api.histories import HISTORIES
from tequipy_platform.database.migrations import History
from tequipy_platform.database.migrations.runner import alembic_config


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.schema)
def test_outdated_revisions_are_those_of_alembic(history: History) -> None:
    """The revisions that processes read from the files' text are those that Alembic reads, all but the head."""
    scripts = ScriptDirectory.from_config(alembic_config(history, io.StringIO()))
    known = {script.revision for script in scripts.walk_revisions()}
    assert history.outdated_revisions() == known - set(scripts.get_heads())

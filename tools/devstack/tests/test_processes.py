"""The user of the servers' processes, and unchanged permissions of the machine."""

import os
import pwd
from pathlib import Path

import psutil
import pytest

from tequipy_devstack.servers import PostgresServer, Server, ValkeyServer


def permissions(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return owner, group and mode of a folder and of all its parents."""
    facts = {path: path.stat() for path in (folder, *folder.parents)}
    return {path: (fact.st_uid, fact.st_gid, fact.st_mode) for path, fact in facts.items()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
@pytest.mark.parametrize("kind", [PostgresServer, ValkeyServer], ids=lambda kind: kind.name)
def test_root_starts_a_server_as_nobody_below_a_closed_folder(kind: type[Server], tmp_path: Path) -> None:
    """As root, a server below a private folder starts as nobody, and permissions above do not change."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = permissions(home)
    with kind(home / "server") as server:
        leader = psutil.Process(server.pid)
        owners = {process.uids() for process in [leader, *leader.children(recursive=True)]}
        nobody = pwd.getpwnam("nobody").pw_uid
        assert owners == {(nobody, nobody, nobody)}
        assert permissions(home) == before
    assert permissions(home) == before

"""Permissions of roles, and how changes reach every process."""

from uuid import UUID

import pytest

from tequipy_auth import AuditAction, AuditEvent, Auth, Role
from tequipy_auth.domain.roles import RoleMap
from tequipy_auth.tasks import DROP_ROLES, build_handlers
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations, build_fake_auth
from tequipy_platform import JSON, Delivery, SystemClock
from tequipy_platform.testing import RecordingMailer

ADMIN = UUID(int=1)


@pytest.fixture
def work() -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(SystemClock())


@pytest.fixture
def processes(work: MemoryAuthUnitOfWork) -> tuple[Auth, Auth]:
    """Two processes with one database and separate caches."""
    return build_fake_auth(work), build_fake_auth(work)


def test_permissions_of_several_roles_are_one_sorted_set() -> None:
    """The permissions are sorted and unique; an unknown role grants none."""
    roles = RoleMap((Role("writer", ("b:write", "a:write")), Role("reader", ("b:write", "a:read"))))
    assert roles.permissions_of(("writer", "reader", "ghost")) == ("a:read", "a:write", "b:write")
    assert roles.permissions_of(()) == ()


def test_a_stored_role_replaces_a_built_in_one() -> None:
    """Stored roles replace built-in roles of the same name and are added to the others."""
    roles = RoleMap.over_built_in([Role("support", ("users:read",)), Role("auditor", ("audit:read",))])
    assert roles.permissions_of(["support"]) == ("users:read",)
    assert roles.permissions_of(["auditor"]) == ("audit:read",)
    assert "users:write" in roles.permissions_of(["admin"])
    assert roles.permissions_of(["user"]) == ()


@pytest.mark.parametrize(
    ("name", "permission"), [("", "a:read"), ("Support", "a:read"), ("a b", "a:read"), ("a", "read"), ("a", "a:b:c")]
)
def test_a_malformed_role_is_refused(name: str, permission: str) -> None:
    """Names must be snake_case and permissions `resource:verb`."""
    with pytest.raises(ValueError, match=r"snake_case|resource:verb"):
        Role(name, (permission,))


async def test_a_defined_role_takes_effect_at_once(work: MemoryAuthUnitOfWork) -> None:
    """The cached roles are invalidated after the commit; the change is audited and counted."""
    operations = RecordingOperations()
    auth = build_fake_auth(work, operations=operations)
    assert "reports:read" in await auth.roles.permissions_of(["support"])
    await auth.roles.define(Role("support", ("users:read", "users:read")), actor_id=ADMIN)
    assert await auth.roles.permissions_of(["support"]) == ("users:read",)
    permits: dict[str, JSON] = {"role": "support", "permissions": ["users:read"]}
    assert work.audit.events == [AuditEvent(AuditAction.ROLE_CHANGED, actor_id=ADMIN, metadata=permits)]
    assert operations.counts["define_role", "ok"] == 1


async def test_the_roles_are_read_once(work: MemoryAuthUnitOfWork) -> None:
    """The cached roles are used until a change invalidates them."""
    auth = build_fake_auth(work)
    before = await auth.roles.permissions_of(["support"])
    work.roles.rows["support"] = Role("support")
    assert await auth.roles.permissions_of(["support"]) == before


async def test_a_task_invalidates_the_cache_when_the_process_died(
    processes: tuple[Auth, Auth], work: MemoryAuthUnitOfWork
) -> None:
    """A task of the same transaction invalidates cached roles that the process itself did not."""
    here, there = processes
    assert "reports:read" in await there.roles.permissions_of(["support"])
    await here.roles.define(Role("support"))
    assert "reports:read" in await there.roles.permissions_of(["support"]), "its cache has not been told"
    (asked,) = work.outbox.tasks
    assert asked.task == DROP_ROLES.name
    await build_handlers(there, RecordingMailer())[DROP_ROLES](Delivery(work.new_id(), asked.task), **asked.payload)
    assert await there.roles.permissions_of(["support"]) == ()

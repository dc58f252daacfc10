"""The service that defines roles, and the caches of their permissions."""

import pytest

from tequipy_auth import AuditAction, AuditEvent, Auth, Role
from tequipy_auth.tasks import DROP_ROLES, build_handlers
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations, build_fake_auth
from tequipy_platform import JSON, Delivery
from tequipy_platform.testing import RecordingMailer


@pytest.fixture
def processes(work: MemoryAuthUnitOfWork) -> tuple[Auth, Auth]:
    """Two processes with one database and separate caches."""
    return build_fake_auth(work), build_fake_auth(work)


async def test_a_defined_role_takes_effect_at_once(work: MemoryAuthUnitOfWork) -> None:
    """The cached roles are invalidated after the commit; the change is audited and counted."""
    operations = RecordingOperations()
    auth = build_fake_auth(work, operations=operations)
    assert "audit:read" in await auth.roles.permissions_of(["support"])
    await auth.roles.define(Role("support", ("users:read", "users:read")))
    assert await auth.roles.permissions_of(["support"]) == ("users:read",)
    permits: dict[str, JSON] = {"role": "support", "permissions": ["users:read"]}
    assert work.audit.events == [AuditEvent(AuditAction.ROLE_CHANGED, metadata=permits)]
    assert operations.counts["define_role", "ok"] == 1


async def test_the_roles_are_read_once(work: MemoryAuthUnitOfWork) -> None:
    """The cached roles are used until a change invalidates them."""
    auth = build_fake_auth(work)
    before = await auth.roles.permissions_of(["support"])
    work.roles.rows["support"] = Role("support")
    assert await auth.roles.permissions_of(["support"]) == before


async def test_permissions_are_worked_out_once(work: MemoryAuthUnitOfWork) -> None:
    """Requests with the same roles get one tuple, until a change of the roles."""
    auth = build_fake_auth(work)
    before = await auth.roles.permissions_of(["user", "support"])
    assert await auth.roles.permissions_of(("user", "support")) is before
    assert await auth.roles.all() is await auth.roles.all()
    await auth.roles.define(Role("support", ("users:read",)))
    assert await auth.roles.permissions_of(["user", "support"]) == ("users:read",)


async def test_a_task_invalidates_the_cache_when_the_process_died(
    processes: tuple[Auth, Auth], work: MemoryAuthUnitOfWork
) -> None:
    """A task of the same transaction invalidates cached roles that the process itself did not."""
    here, there = processes
    assert "audit:read" in await there.roles.permissions_of(["support"])
    await here.roles.define(Role("support"))
    assert "audit:read" in await there.roles.permissions_of(["support"]), "its cache has not been invalidated"
    (asked,) = work.outbox.tasks
    assert asked.task == DROP_ROLES.name
    await build_handlers(there, RecordingMailer())[DROP_ROLES](Delivery(work.new_id(), asked.task), **asked.payload)
    assert await there.roles.permissions_of(["support"]) == ()

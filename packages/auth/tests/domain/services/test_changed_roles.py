"""Changes of roles by administrators: roles in use, and how often the roles are read."""

from datetime import timedelta

import pytest

from tequipy_auth import Auth, Role, RoleInUse
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, PASSWORD, account_of, principal_of

NEWCOMER = "grace@example.com"
pytestmark = pytest.mark.usefixtures("account")


async def test_a_role_of_an_open_invitation_is_in_use(
    auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock
) -> None:
    """It cannot be deleted, which would make the link invalid; once the invitation is accepted or expired it can."""
    await auth.roles.define(Role("auditor", ("audit:read",)))
    await auth.invitations.invite(principal_of(work), email=NEWCOMER, roles=["auditor"], client=CLIENT)
    with pytest.raises(RoleInUse):
        await auth.roles.delete("auditor", by=principal_of(work))
    assert "auditor" in work.roles.rows
    clock.advance(timedelta(days=7))
    await auth.roles.delete("auditor", by=principal_of(work))
    assert "auditor" not in work.roles.rows


async def test_roles_are_read_once_in_a_transaction(
    auth: Auth, work: MemoryAuthUnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing an account, inviting and defining a role read the stored roles once each."""
    read, read_all = list[int](), work.roles.all

    async def count() -> object:
        read.append(1)
        return await read_all()

    monkeypatch.setattr(work.roles, "all", count)
    await auth.registration.create_admin(email="b@example.com", password=PASSWORD)
    caller, other = principal_of(work), account_of(work, "b@example.com")
    for change in (
        auth.administration.set_roles(caller, other.id, ["user"], client=CLIENT),
        auth.administration.unlock(caller, other.id, client=CLIENT),
        auth.invitations.invite(caller, email=NEWCOMER, roles=["user"], client=CLIENT),
        auth.roles.define(Role("auditor", ("audit:read",)), by=caller),
    ):
        read.clear()
        await change
        assert len(read) == 1

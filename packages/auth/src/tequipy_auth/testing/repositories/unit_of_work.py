"""The unit of work with all repositories in memory."""

from collections.abc import Sequence
from typing import Any

from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.testing.repositories.accounts import MemoryEmailChanges, MemoryRegistrations, MemoryUsers
from tequipy_auth.testing.repositories.attempts import MemoryLoginAttempts
from tequipy_auth.testing.repositories.audit import MemoryAuditTrail
from tequipy_auth.testing.repositories.devices import MemoryDevices
from tequipy_auth.testing.repositories.invitations import MemoryInvitations
from tequipy_auth.testing.repositories.mail_charges import MemoryMailCharges
from tequipy_auth.testing.repositories.one_time_tokens import MemoryOneTimeTokens
from tequipy_auth.testing.repositories.roles import MemoryRoles
from tequipy_auth.testing.repositories.sessions import MemoryRefreshTokens, MemorySessions
from tequipy_auth.testing.repositories.signing_keys import MemorySigningKeys
from tequipy_platform import Clock
from tequipy_platform.testing import CountingIds, MemoryUnitOfWork


class MemoryAuthUnitOfWork(MemoryUnitOfWork, AuthUnitOfWork):
    """A unit of work in memory; concurrent ones run one after the other.

    A test can read the stored entities in `rows`, for instance `work.users.rows` and `work.outbox.tasks`. `new_id`
    returns numbered ids for new entities.
    """

    registrations: MemoryRegistrations
    invitations: MemoryInvitations
    users: MemoryUsers
    email_changes: MemoryEmailChanges
    sessions: MemorySessions
    refresh_tokens: MemoryRefreshTokens
    one_time_tokens: MemoryOneTimeTokens
    devices: MemoryDevices
    attempts: MemoryLoginAttempts
    mail_charges: MemoryMailCharges
    audit: MemoryAuditTrail
    signing_keys: MemorySigningKeys
    roles: MemoryRoles

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.new_id = CountingIds()
        self.registrations = MemoryRegistrations()
        self.email_changes = MemoryEmailChanges()
        self.users = MemoryUsers(self.email_changes)
        self.invitations = MemoryInvitations(self.users)
        self.sessions = MemorySessions()
        self.refresh_tokens = MemoryRefreshTokens(self.sessions, self.users)
        self.one_time_tokens = MemoryOneTimeTokens()
        self.devices = MemoryDevices()
        self.attempts = MemoryLoginAttempts()
        self.mail_charges = MemoryMailCharges()
        self.audit = MemoryAuditTrail(clock, CountingIds())
        self.signing_keys = MemorySigningKeys()
        self.roles = MemoryRoles()

    def tables(self) -> Sequence[dict[Any, Any] | list[Any]]:
        """Return every collection that a rollback restores."""
        return (
            *super().tables(),
            self.registrations.rows,
            self.invitations.rows,
            self.users.rows,
            self.users.superseded_at,
            self.email_changes.rows,
            self.sessions.rows,
            self.sessions.reasons,
            self.refresh_tokens.rows,
            self.one_time_tokens.rows,
            self.one_time_tokens.used,
            self.devices.rows,
            self.attempts.rows,
            self.mail_charges.rows,
            self.audit.rows,
            self.signing_keys.rows,
            self.roles.rows,
        )

"""The unit of work with all repositories on PostgreSQL."""

from sqlalchemy.ext.asyncio import AsyncSession

from tequipy_auth.domain.repositories import AuthUnitOfWork
from tequipy_auth.infrastructure.repositories.accounts import SqlRegistrations, SqlUsers
from tequipy_auth.infrastructure.repositories.attempts import SqlLoginAttempts
from tequipy_auth.infrastructure.repositories.audit import SqlAuditTrail
from tequipy_auth.infrastructure.repositories.devices import SqlDevices
from tequipy_auth.infrastructure.repositories.email_changes import SqlEmailChanges
from tequipy_auth.infrastructure.repositories.invitations import SqlInvitations
from tequipy_auth.infrastructure.repositories.mail_charges import SqlMailCharges
from tequipy_auth.infrastructure.repositories.one_time_tokens import SqlOneTimeTokens
from tequipy_auth.infrastructure.repositories.roles import SqlRoles
from tequipy_auth.infrastructure.repositories.sessions import SqlRefreshTokens, SqlSessions
from tequipy_auth.infrastructure.repositories.signing_keys import SqlSigningKeys
from tequipy_auth.infrastructure.settings import SCHEMA
from tequipy_platform.messaging import SqlUnitOfWork


class SqlAuthUnitOfWork(SqlUnitOfWork, AuthUnitOfWork):
    """A PostgreSQL transaction with all repositories of auth."""

    audit: SqlAuditTrail

    def _bind(self, session: AsyncSession) -> None:
        self.registrations = SqlRegistrations(session)
        self.invitations = SqlInvitations(session)
        self.email_changes = SqlEmailChanges(session)
        self.users = SqlUsers(session, self.email_changes)
        self.sessions = SqlSessions(session)
        self.refresh_tokens = SqlRefreshTokens(session)
        self.one_time_tokens = SqlOneTimeTokens(session)
        self.devices = SqlDevices(session)
        self.attempts = SqlLoginAttempts(session)
        self.mail_charges = SqlMailCharges(session)
        schema = self._database.schemas.get(SCHEMA, SCHEMA)
        self.audit = SqlAuditTrail(session, self._clock, self._new_id, schema=schema)
        self.signing_keys = SqlSigningKeys(session)
        self.roles = SqlRoles(session)

    async def _before_commit(self) -> None:
        await self.audit.write()

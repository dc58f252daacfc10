"""The routes of accounts and sessions; the business rules are in the services."""

from fastapi import APIRouter, Depends

from tequipy_auth.api.csrf import refuse_forms
from tequipy_auth.api.routes import (
    audit,
    email_changes,
    invitations,
    me,
    passwords,
    registration,
    roles,
    sessions,
    users,
    well_known,
)

router = APIRouter(tags=["accounts and sessions"], dependencies=[Depends(refuse_forms)])
for part in (registration, sessions, passwords, email_changes, me):
    router.include_router(part.router)

administration_router = APIRouter(tags=["administration"], dependencies=[Depends(refuse_forms)])
for part in (users, invitations, roles, audit):
    administration_router.include_router(part.router)

well_known_router = well_known.router

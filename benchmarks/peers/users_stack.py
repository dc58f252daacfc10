"""fastapi-users, prometheus-fastapi-instrumentator and asgi-correlation-id in one app, as their documentation says.

`DATABASE_URL` names PostgreSQL, which this project uses too; the documentation of fastapi-users allows both it and
SQLite. Uvicorn's access log has the correlation id and goes to standard output.
"""

import logging.config
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from prometheus_fastapi_instrumentator import Instrumentator
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

SECRET = "a secret of the benchmark, which has 32 bytes or more"  # noqa: S105 -- of a server on this machine that lives for minutes

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"correlation_id": {"()": "asgi_correlation_id.CorrelationIdFilter", "uuid_length": 32}},
        "formatters": {"web": {"format": "%(asctime)s %(levelname)s [%(correlation_id)s] %(name)s %(message)s"}},
        "handlers": {
            "web": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "filters": ["correlation_id"],
                "formatter": "web",
            }
        },
        "loggers": {"uvicorn.access": {"handlers": ["web"], "level": "INFO", "propagate": False}},
    }
)


class Base(DeclarativeBase):
    """The declarative base."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """An account."""


engine = create_async_engine(os.environ["DATABASE_URL"])
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_async_session() -> AsyncIterator[AsyncSession]:
    """Yield a session for one request."""
    async with new_session() as session:
        yield session


async def get_user_db(
    session: Annotated[AsyncSession, Depends(get_async_session)],
) -> AsyncIterator[SQLAlchemyUserDatabase[User, uuid.UUID]]:
    """Yield the adapter for SQLAlchemy."""
    yield SQLAlchemyUserDatabase(session, User)


class UserManager(UUIDIDMixin, BaseUserManager[User, uuid.UUID]):
    """The manager with the secrets of its tokens."""

    reset_password_token_secret = SECRET
    verification_token_secret = SECRET


async def get_user_manager(
    user_db: Annotated[SQLAlchemyUserDatabase[User, uuid.UUID], Depends(get_user_db)],
) -> AsyncIterator[UserManager]:
    """Yield the manager."""
    yield UserManager(user_db)


class UserRead(schemas.BaseUser[uuid.UUID]):
    """An account as a response."""


class UserCreate(schemas.BaseUserCreate):
    """A registration."""


class UserUpdate(schemas.BaseUserUpdate):
    """A change of an account."""


def get_jwt_strategy() -> JWTStrategy[User, uuid.UUID]:
    """Return the strategy of the access tokens."""
    return JWTStrategy(secret=SECRET, lifetime_seconds=3600)


backend = AuthenticationBackend(
    name="jwt", transport=BearerTransport(tokenUrl="auth/jwt/login"), get_strategy=get_jwt_strategy
)
users = FastAPIUsers[User, uuid.UUID](get_user_manager, [backend])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(CorrelationIdMiddleware)
Instrumentator().instrument(app).expose(app)
app.include_router(users.get_auth_router(backend), prefix="/auth/jwt", tags=["auth"])
app.include_router(users.get_register_router(UserRead, UserCreate), prefix="/auth", tags=["auth"])
app.include_router(users.get_users_router(UserRead, UserUpdate), prefix="/users", tags=["users"])

"""Auth in memory with its services, and the account of most of these tests."""

import pytest

from tequipy_auth import Auth, TokenPair
from tequipy_auth.testing import MemoryAuthUnitOfWork, RecordingOperations, build_fake_auth
from tequipy_platform.testing import FrozenClock

from .accounts import CLIENT, EMAIL, PASSWORD, CountingHasher


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def operations() -> RecordingOperations:
    return RecordingOperations()


@pytest.fixture
def auth(
    work: MemoryAuthUnitOfWork, clock: FrozenClock, hasher: CountingHasher, operations: RecordingOperations
) -> Auth:
    return build_fake_auth(work, clock=clock, hasher=hasher, operations=operations)


@pytest.fixture
async def account(auth: Auth) -> None:
    """Create the account; files whose tests all need it use this fixture for each of them."""
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)


@pytest.fixture
async def pair(auth: Auth) -> TokenPair:
    return await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)

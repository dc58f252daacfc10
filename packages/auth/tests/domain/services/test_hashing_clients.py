"""The hashing client of each service: the client's network, and whether its device mark is valid for the account."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tequipy_auth import Auth, Client, HashingClient, InvalidCredentials, PasswordHash
from tequipy_auth.testing import FakePasswordHasher, MemoryAuthUnitOfWork
from tequipy_platform import Delivery
from tequipy_platform.testing import RecordingMailer

from .accounts import EMAIL, NEW, PASSWORD

OTHER_EMAIL = "bob@example.com"
CLIENT = Client("2001:db8:1:2::3", "test")
NETWORK = "2001:db8:1::/48"


class RecordingHasher(FakePasswordHasher):
    """Records the clients for which it hashed."""

    def __init__(self) -> None:
        self.clients: list[HashingClient] = []

    async def hash(self, password: str, client: HashingClient) -> PasswordHash:
        self.clients.append(client)
        return await super().hash(password, client)


@pytest.fixture
def hasher() -> RecordingHasher:
    return RecordingHasher()


@pytest.fixture(autouse=True)
async def accounts(auth: Auth) -> None:
    for email in (EMAIL, OTHER_EMAIL):
        await auth.registration.create_admin(email=email, password=PASSWORD)


async def marked(auth: Auth, email: str = EMAIL) -> Client:
    """Return the client with the device mark of a login to the account."""
    pair = await auth.login.with_password(email=email, password=PASSWORD, client=CLIENT)
    return replace(CLIENT, device_mark=pair.device_mark)


async def log_in(auth: Auth, _work: MemoryAuthUnitOfWork, client: Client) -> None:
    await auth.login.with_password(email=EMAIL, password=PASSWORD, client=client)


async def fail_to_log_in(auth: Auth, _work: MemoryAuthUnitOfWork, client: Client) -> None:
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=EMAIL, password="wrong", client=client)


async def reauthenticate(auth: Auth, _work: MemoryAuthUnitOfWork, client: Client) -> None:
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=client)
    principal = await auth.access_tokens.verify(pair.access.value)
    await auth.login.reauthenticate(principal, password=PASSWORD, client=client)


async def change(auth: Auth, _work: MemoryAuthUnitOfWork, client: Client) -> None:
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=client)
    principal = await auth.access_tokens.verify(pair.access.value)
    await auth.passwords.change(principal, current_password=PASSWORD, new_password=NEW, client=client)


async def reset(auth: Auth, work: MemoryAuthUnitOfWork, client: Client) -> None:
    await auth.passwords.forgot(email=EMAIL, client=client)
    mailer = RecordingMailer()
    (asked,) = (each for each in work.outbox.tasks if each.payload.get("mail") == "reset_password")
    payload: dict[str, Any] = asked.payload
    await auth.mailing(mailer).send_mail(Delivery(work.new_id(), asked.task), **payload)
    token = mailer.mails[0].text.partition("#token=")[2].strip()
    await auth.passwords.reset(token, new_password=NEW, client=client)


ASKED = [log_in, fail_to_log_in, reauthenticate, change, reset]


@pytest.mark.parametrize("ask", ASKED)
async def test_a_hash_is_charged_to_the_clients_network(
    auth: Auth,
    work: MemoryAuthUnitOfWork,
    hasher: RecordingHasher,
    ask: Callable[[Auth, MemoryAuthUnitOfWork, Client], Awaitable[None]],
) -> None:
    """Without a mark, every hash counts for the unmarked network of the client."""
    hasher.clients.clear()
    await ask(auth, work, CLIENT)
    assert set(hasher.clients) == {HashingClient(NETWORK)}


@pytest.mark.parametrize("ask", ASKED)
async def test_a_marked_client_is_trusted(
    auth: Auth,
    work: MemoryAuthUnitOfWork,
    hasher: RecordingHasher,
    ask: Callable[[Auth, MemoryAuthUnitOfWork, Client], Awaitable[None]],
) -> None:
    """With a mark of the same account, every hash may use the reserved places."""
    client = await marked(auth)
    hasher.clients.clear()
    await ask(auth, work, client)
    assert set(hasher.clients) == {HashingClient(NETWORK, marked=True)}


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
async def test_the_mark_of_another_account_is_not_trusted(auth: Auth, hasher: RecordingHasher, email: str) -> None:
    """A mark of one account does not give access to the reserved places for guesses at another account."""
    client = await marked(auth, OTHER_EMAIL)
    hasher.clients.clear()
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=email, password="wrong", client=client)
    assert hasher.clients == [HashingClient(NETWORK)]


async def test_a_registration_is_never_trusted(auth: Auth, hasher: RecordingHasher) -> None:
    """A registration never uses the reserved places, because it has no account and so no mark."""
    client = await marked(auth)
    hasher.clients.clear()
    await auth.registration.register(email="new@example.com", password=PASSWORD, client=client)
    assert hasher.clients == [HashingClient(NETWORK)]

"""The deletion of the caller's own account, and the export of what is held about it."""

from datetime import timedelta

import httpx
import pytest

from tequipy_auth import Auth, PersonalData
from tequipy_auth.tasks import ERASE_ACCOUNTS, SEND_MAIL, build_handlers
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import JSON, Delivery
from tequipy_platform.testing import CountingIds, FrozenClock, RecordingMailer

from .conftest import OWN_ORIGINS, serve
from .routes import AUTH, EMAIL, GOOD, LOGIN, ME, PASSWORD, REFRESH, bearer, code_of, is_deletion, log_in

OTHER = {"email": "other@example.org", "password": PASSWORD}


async def delete_me(client: httpx.AsyncClient, headers: dict[str, str], password: str = PASSWORD) -> httpx.Response:
    return await client.request("DELETE", ME, headers=headers, json={"password": password})


@pytest.fixture
async def second_admin(auth: Auth) -> None:
    await auth.registration.create_admin(**OTHER)


@pytest.mark.usefixtures("user", "second_admin")
async def test_a_deleted_account_is_out_at_once(client: httpx.AsyncClient, work: MemoryAuthUnitOfWork) -> None:
    """All its credentials are refused, its owner gets a notice, and an administrator can enable it again."""
    login = await log_in(client)
    (user_id,) = [row.id for row in work.users.rows.values() if row.email.canonical == EMAIL]
    answer = await delete_me(client, bearer(login))
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert is_deletion(answer)
    assert code_of(await client.get(ME, headers=bearer(login)), 401) == "invalid_token"
    assert code_of(await client.post(LOGIN, json=GOOD), 401) == "invalid_credentials"
    assert work.outbox.tasks[-1].payload == {"mail": "account_deleted", "subject_id": str(user_id)}
    admin = bearer(await client.post(LOGIN, json=OTHER))
    url = f"/api/v1/users/{user_id}"
    assert (await client.get(url, headers=admin)).json()["status"] == "deleting"
    assert (await client.post(f"{url}/enable", headers=admin)).status_code == 204
    assert (await client.post(LOGIN, json=GOOD)).status_code == 200


@pytest.mark.usefixtures("user")
async def test_a_deletion_needs_the_password_and_another_administrator(client: httpx.AsyncClient) -> None:
    """A wrong password is 401 and counts as a failure; the last administrator cannot delete the account."""
    headers = bearer(await log_in(client))
    assert code_of(await delete_me(client, headers), 409) == "last_admin"
    for _ in range(5):
        assert code_of(await delete_me(client, headers, "a wrong password"), 401) == "invalid_credentials"
    assert code_of(await delete_me(client, headers), 429) == "login_locked"


async def test_an_account_is_erased_after_seven_days() -> None:
    """Not earlier, and with all rows; a notice that is still to be sent is not sent any more."""
    clock = FrozenClock()
    work = MemoryAuthUnitOfWork(clock)
    auth = build_fake_auth(work, clock=clock, origins=OWN_ORIGINS)
    for account in (GOOD, OTHER):
        await auth.registration.create_admin(**account)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(serve(auth)), base_url="https://app.example.com"
    ) as client:
        assert (await delete_me(client, bearer(await log_in(client)))).status_code == 202
    mailer = RecordingMailer()
    handlers = build_handlers(auth, mailer)
    ids = CountingIds()
    for left, advance in ((2, timedelta(days=7) - timedelta(seconds=1)), (1, timedelta(seconds=1))):
        clock.advance(advance)
        await handlers[ERASE_ACCOUNTS](Delivery(ids(), "auth.erase_accounts"))
        assert len(work.users.rows) == left
    assert [event.name for event in work.outbox.events] == ["auth.account_erased"]
    (notice,) = [added for added in work.outbox.tasks if added.payload.get("mail") == "account_deleted"]
    await handlers[SEND_MAIL](Delivery(ids(), "auth.send_mail"), **notice.payload)
    assert mailer.mails == []


class Orders(PersonalData):
    """What another package holds."""

    section = "orders"

    async def export(self, user_id: object) -> JSON:
        return [{"owner": str(user_id)}]


async def test_the_export_has_everything_but_secrets(work: MemoryAuthUnitOfWork) -> None:
    """Account, sessions, devices, events, and the parts of other packages; no hash and nobody else's data."""
    auth = build_fake_auth(work, personal_data=[Orders()], origins=OWN_ORIGINS)
    for account in (GOOD, OTHER):
        await auth.registration.create_admin(**account)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(serve(auth)), base_url="https://app.example.com"
    ) as client:
        await client.post(LOGIN, json=OTHER)
        login = await log_in(client)
        await client.post(REFRESH)
        answer = await client.get(f"{ME}/export", headers=bearer(login))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    exported = answer.json()
    assert list(exported) == [
        "account",
        "sessions",
        "devices",
        "registrations",
        "invitations",
        "email_changes",
        "events",
        "orders",
    ]
    assert exported["account"]["email"] == EMAIL
    assert [session["ended_at"] for session in exported["sessions"]] == [None]
    assert len(exported["devices"]) == 1
    assert {"login_ok", "registered"} <= {event["action"] for event in exported["events"]}
    assert exported["orders"] == [{"owner": exported["account"]["id"]}]
    assert "digest" not in answer.text
    assert OTHER["email"] not in answer.text


async def test_the_export_has_what_others_did_to_the_account_and_what_it_did_to_others(
    auth: Auth, client: httpx.AsyncClient
) -> None:
    """The events have the own client and metadata, and of another account's neither; registrations are listed too."""
    for account in (GOOD, OTHER):
        await auth.registration.create_admin(**account)
    await client.post(f"{AUTH}/register", json=GOOD | {"name": "A Stranger"})
    mine = bearer(await log_in(client))
    ids = {each["email"]: each["id"] for each in (await client.get("/api/v1/users", headers=mine)).json()["items"]}
    for caller, email, agent in ((GOOD, OTHER["email"], "my browser"), (OTHER, EMAIL, "their browser")):
        headers = bearer(await client.post(LOGIN, json=caller)) | {"User-Agent": agent}
        body = {"roles": ["admin", "support"]}
        answer = await client.put(f"/api/v1/users/{ids[email]}/roles", headers=headers, json=body)
        assert answer.status_code == 204
    answer = await client.get(f"{ME}/export", headers=bearer(await log_in(client)))
    assert "their browser" not in answer.text
    by_them, by_me = [each for each in answer.json()["events"] if each["action"] == "role_changed"]
    assert (by_them["user_agent"], by_them["metadata"]["roles"]) == (None, ["admin", "support"])
    assert (by_me["user_agent"], by_me["metadata"]) == ("my browser", {})
    assert [each["name"] for each in answer.json()["registrations"]] == ["A Stranger"]
    assert OTHER["email"] not in answer.text


async def test_own_events_do_not_show_the_client_of_an_administrator(auth: Auth, client: httpx.AsyncClient) -> None:
    """The address and browser of somebody else who changed the account are null; the audit for readers has them."""
    for account in (GOOD, OTHER):
        await auth.registration.create_admin(**account)
    admin = bearer(await client.post(LOGIN, json=OTHER)) | {"User-Agent": "their browser"}
    mine = bearer(await log_in(client))
    user_id = (await client.get(ME, headers=mine)).json()["id"]
    assert (await client.post(f"/api/v1/users/{user_id}/unlock", headers=admin)).status_code == 204
    for path, seen in ((f"{ME}/events", None), (f"/api/v1/audit-events?user_id={user_id}", "their browser")):
        latest, *_ = (await client.get(path, headers=mine)).json()["items"]
        assert (latest["action"], latest["user_agent"]) == ("user_unlocked", seen)
        assert (latest["ip"] is None) == (seen is None)

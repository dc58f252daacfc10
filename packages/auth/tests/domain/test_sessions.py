"""Login, refresh and logout, with the in-memory fakes."""

import asyncio
import string
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tequipy_auth import (
    AuditAction,
    AuditEvent,
    Auth,
    Client,
    InvalidAccessToken,
    InvalidCredentials,
    Outcome,
    RefreshExpired,
    RefreshInvalid,
    RefreshReused,
    RefreshSuperseded,
    RefreshTokenValue,
    SessionRevoked,
    TokenPair,
)
from tequipy_auth.testing import MemoryAuthUnitOfWork, MemoryRevocations, RecordingOperations, build_fake_auth
from tequipy_platform import JSON, Delivery, NotFound
from tequipy_platform.testing import FrozenClock

PASSWORD = "correct horse battery staple"
EMAIL = "ada@example.com"
CLIENT = Client("192.0.2.1", "test")
GRACE = timedelta(seconds=60)
MOMENT = timedelta(seconds=1)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def work(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
async def auth(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> Auth:
    auth = build_fake_auth(work, clock=clock)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    return auth


@pytest.fixture
async def pair(auth: Auth) -> TokenPair:
    return await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)


async def refresh(auth: Auth, pair: TokenPair) -> TokenPair:
    return await auth.sessions.refresh(str(pair.refresh), client=CLIENT)


def only_session_is_revoked(work: MemoryAuthUnitOfWork) -> bool:
    (session,) = work.sessions.rows.values()
    return session.revoked_at is not None


async def test_a_login_starts_a_session(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock
) -> None:
    """The session contains the client; the access token names user, session and authentication method."""
    (user,), (session,) = work.users.rows.values(), work.sessions.rows.values()
    principal = await auth.access_tokens.verify(pair.access.value)
    assert (principal.user_id, principal.session_id, principal.roles) == (user.id, session.id, ("admin",))
    assert (principal.amr, principal.auth_time, principal.version) == (("pwd",), clock.now(), 1)
    assert session.client == CLIENT
    assert pair.refresh_expires_in == 7 * 86400
    assert pair.refresh.secret not in repr(list(work.refresh_tokens.rows.values()))


async def test_a_login_finds_the_account_by_any_spelling(auth: Auth) -> None:
    """Case and outer spaces of the address and the Unicode form of the password do not matter."""
    await auth.registration.create_admin(email="b@example.com", password="\u212bngström-units")
    await auth.login.with_password(email=" B@EXAMPLE.com ", password="A\u030angstro\u0308m-units", client=CLIENT)


@pytest.mark.parametrize(("email", "password"), [(EMAIL, "wrong password"), ("nobody@example.com", PASSWORD)])
async def test_a_failed_login_does_not_reveal_the_reason(
    auth: Auth, work: MemoryAuthUnitOfWork, email: str, password: str
) -> None:
    """An unknown address and a wrong password get the same answer and start no session."""
    with pytest.raises(InvalidCredentials):
        await auth.login.with_password(email=email, password=password, client=CLIENT)
    assert not work.sessions.rows


async def test_every_refresh_rotates(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """Each refresh returns a new token of the same session."""
    second = await refresh(auth, pair)
    third = await refresh(auth, second)
    assert len({str(each.refresh) for each in (pair, second, third)}) == 3
    sessions = {(await auth.access_tokens.verify(each.access.value)).session_id for each in (pair, second, third)}
    assert sessions == set(work.sessions.rows)


async def test_parallel_refreshes_return_the_same_successor(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """20 concurrent refreshes of one token are one rotation with one successor."""
    pairs = await asyncio.gather(*(refresh(auth, pair) for _ in range(20)))
    assert len({str(each.refresh) for each in pairs}) == 1
    assert len(work.refresh_tokens.rows) == 2
    await refresh(auth, pairs[0])


async def test_a_lost_response_can_be_requested_again_within_the_grace_period(
    auth: Auth, pair: TokenPair, clock: FrozenClock
) -> None:
    """A used token returns its unused successor until the end of the grace period, inclusive."""
    second = await refresh(auth, pair)
    clock.advance(GRACE)
    again = await refresh(auth, pair)
    assert str(again.refresh) == str(second.refresh)
    await refresh(auth, again)


@pytest.mark.parametrize(
    ("client", "changed"),
    [
        (CLIENT, []),
        (Client("198.51.100.7", "test"), ["client_address"]),
        (Client("192.0.2.1", "curl"), ["user_agent"]),
        (Client("198.51.100.7", "curl"), ["client_address", "user_agent"]),
    ],
)
async def test_a_replay_from_elsewhere_is_audited(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, client: Client, changed: list[JSON]
) -> None:
    """A successor that is returned again to another client address or user agent is audited without an actor."""
    first = await auth.sessions.refresh(str(pair.refresh), client=replace(CLIENT, device_mark="a mark"))
    again = await auth.sessions.refresh(str(pair.refresh), client=client)
    assert str(again.refresh) == str(first.refresh)
    (session,) = work.sessions.rows.values()
    replayed = [event for event in work.audit.events if event.action == "refresh_replayed"]
    expected = AuditEvent(
        AuditAction.REFRESH_REPLAYED,
        subject_id=session.user_id,
        session_id=session.id,
        client=client,
        metadata={"changed": changed},
    )
    assert replayed == ([expected] if changed else [])


async def test_a_replay_is_compared_with_the_first_use_of_the_token(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """A network that changed after the login causes no audit event; IPv6 addresses are compared by /64."""
    train, seat = Client("2001:db8::1", "test"), Client("2001:db8::2", "test")
    for _ in range(2):
        second = await auth.sessions.refresh(str(pair.refresh), client=train)
        await auth.sessions.refresh(str(pair.refresh), client=seat)
        pair = second
    assert AuditAction.REFRESH_REPLAYED not in {event.action for event in work.audit.events}


async def test_a_superseded_token_is_no_replay(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """A superseded token returns no token, so nothing is audited."""
    await refresh(auth, await refresh(auth, pair))
    with pytest.raises(RefreshSuperseded):
        await auth.sessions.refresh(str(pair.refresh), client=Client("198.51.100.7", "curl"))
    assert AuditAction.REFRESH_REPLAYED not in {event.action for event in work.audit.events}


async def test_a_token_with_a_used_successor_is_superseded(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock
) -> None:
    """Within the grace period a token with a used successor is superseded, and nothing changes."""
    second = await refresh(auth, pair)
    third = await refresh(auth, second)
    clock.advance(GRACE)
    with pytest.raises(RefreshSuperseded):
        await refresh(auth, pair)
    assert not only_session_is_revoked(work)
    await refresh(auth, third)


@pytest.mark.parametrize("child_used", [False, True])
async def test_a_used_token_after_the_grace_is_theft(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock, child_used: bool
) -> None:
    """After the grace period a used token ends the session, whether its successor was used or not."""
    second = await refresh(auth, pair)
    latest = await refresh(auth, second) if child_used else second
    clock.advance(GRACE + MOMENT)
    with pytest.raises(RefreshReused):
        await refresh(auth, pair)
    assert only_session_is_revoked(work), "committed although the answer is an error"
    assert list(work.sessions.reasons.values()) == ["refresh_reused"]
    with pytest.raises(SessionRevoked):
        await refresh(auth, latest)


async def test_the_grace_period_starts_with_the_first_use(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """Repeated use does not extend the grace period, so that a thief cannot follow the owner for ever."""
    await refresh(auth, pair)
    clock.advance(GRACE)
    await refresh(auth, pair)
    clock.advance(MOMENT)
    with pytest.raises(RefreshReused):
        await refresh(auth, pair)


async def test_an_idle_session_ends(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """A session ends after seven days without a refresh."""
    clock.advance(timedelta(days=7) - MOMENT)
    second = await refresh(auth, pair)
    clock.advance(timedelta(days=7))
    with pytest.raises(RefreshExpired):
        await refresh(auth, second)


async def test_no_session_outlives_its_absolute_end(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """A session ends thirty days after the login, and the cookie's max-age reflects that."""
    for _ in range(4):
        clock.advance(timedelta(days=6))
        pair = await refresh(auth, pair)
    clock.advance(timedelta(days=5))
    pair = await refresh(auth, pair)
    assert pair.refresh_expires_in == 86400
    clock.advance(timedelta(days=1))
    with pytest.raises(RefreshExpired):
        await refresh(auth, pair)


@pytest.mark.parametrize(
    "text", ["", "rt1.x.y", "ev1." + "A" * 22 + "." + "A" * 43, "rt1." + "A" * 22 + "." + "B" * 43]
)
async def test_invalid_refresh_tokens_get_the_same_answer(auth: Auth, text: str) -> None:
    """Malformed, foreign, non-canonical and unknown tokens get the same answer."""
    with pytest.raises(RefreshInvalid):
        await auth.sessions.refresh(text, client=CLIENT)


async def test_a_refresh_token_has_one_spelling(auth: Auth, pair: TokenPair) -> None:
    """A token whose last base64url character has unused bits set is refused (RFC 4648, section 3.5)."""
    prefix, selector, secret = str(pair.refresh).split(".")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    other = selector[:-1] + alphabet[alphabet.index(selector[-1]) + 1]
    with pytest.raises(RefreshInvalid):
        await auth.sessions.refresh(f"{prefix}.{other}.{secret}", client=CLIENT)
    await refresh(auth, pair)


async def test_a_wrong_secret_does_not_use_the_token(auth: Auth, pair: TokenPair) -> None:
    """Guessing a token's secret neither rotates it nor ends the session."""
    with pytest.raises(RefreshInvalid):
        await auth.sessions.refresh(str(RefreshTokenValue.new(pair.refresh.id, bytes(32))), client=CLIENT)
    await refresh(auth, pair)


async def test_logout_by_refresh_token_ends_the_session(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """After a logout the refresh token is invalid; a second logout raises no error."""
    for _ in range(2):
        await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    assert only_session_is_revoked(work)
    with pytest.raises(SessionRevoked):
        await refresh(auth, pair)


async def test_logout_by_a_superseded_token_ends_the_session(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """A used refresh token can still end its session."""
    await refresh(auth, await refresh(auth, pair))
    await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    assert only_session_is_revoked(work)


async def test_logout_by_access_token_ends_the_session(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """A client without its refresh token can log out."""
    await auth.sessions.logout(access_token=pair.access.value, client=CLIENT)
    assert only_session_is_revoked(work)


async def test_logout_ends_the_sessions_of_both_credentials(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """Two valid credentials of two sessions end both."""
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    await auth.sessions.logout(refresh_token=str(pair.refresh), access_token=other.access.value, client=CLIENT)
    assert all(session.revoked_at for session in work.sessions.rows.values())


async def test_logout_without_a_valid_credential_is_no_error(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """Invalid or missing credentials end no session."""
    await auth.sessions.logout(refresh_token="rt1.x.y", access_token="x", client=CLIENT)
    await auth.sessions.logout(client=CLIENT)
    assert not only_session_is_revoked(work)
    await refresh(auth, pair)


async def test_a_session_revoked_during_the_refresh_stays_revoked(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair
) -> None:
    """A logout between the reading and the rotation takes precedence, and the rotation is rolled back."""
    refreshing = asyncio.create_task(refresh(auth, pair))
    await asyncio.sleep(0)  # at this point the refresh has read its rows and is hashing
    for session in work.sessions.rows.values():
        await work.sessions.revoke(session.id, at=session.created_at, reason="logout")
    with pytest.raises(SessionRevoked):
        await refreshing
    assert len(work.refresh_tokens.rows) == 1


async def test_a_logout_during_the_grace_is_not_undone(
    auth: Auth, pair: TokenPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A used token that is presented during the logout gets no successor."""
    successor = await refresh(auth, pair)
    prepare = auth.sessions._derive_successor

    async def log_out_meanwhile(*arguments: Any) -> Any:
        await auth.sessions.logout(refresh_token=str(successor.refresh), client=CLIENT)
        return await prepare(*arguments)

    monkeypatch.setattr(auth.sessions, "_derive_successor", log_out_meanwhile)
    with pytest.raises(SessionRevoked):
        await refresh(auth, pair)


async def test_a_removed_server_key_ends_no_session(auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair) -> None:
    """Without the server key the successor cannot be derived again: the token is superseded."""
    second = await refresh(auth, pair)
    child = work.refresh_tokens.rows[second.refresh.id]
    work.refresh_tokens.rows[child.id] = replace(child, key_version=99)
    with pytest.raises(RefreshSuperseded):
        await refresh(auth, pair)
    await refresh(auth, second)


async def test_logging_out_everywhere(auth: Auth, pair: TokenPair) -> None:
    """Every session of the caller ends with its access tokens; sessions of others continue."""
    await auth.registration.create_admin(email="eve@example.com", password=PASSWORD)
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    theirs = await auth.login.with_password(email="eve@example.com", password=PASSWORD, client=CLIENT)
    await auth.sessions.logout_all(await auth.access_tokens.verify(pair.access.value), client=CLIENT)
    for each in (pair, other):
        with pytest.raises(InvalidAccessToken):
            await auth.access_tokens.verify(each.access.value)
        with pytest.raises(SessionRevoked):
            await refresh(auth, each)
    await auth.access_tokens.verify(theirs.access.value)


async def test_logging_out_the_others(auth: Auth, pair: TokenPair) -> None:
    """The caller's current session continues."""
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    principal = await auth.access_tokens.verify(pair.access.value)
    await auth.sessions.logout_others(principal, client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(other.access.value)
    assert [session.id for session in await auth.sessions.sessions(principal)] == [principal.session_id]
    await refresh(auth, pair)


async def test_only_the_owner_can_end_a_session(auth: Auth, pair: TokenPair, clock: FrozenClock) -> None:
    """Ending a session works once; sessions of others, expired and unknown ones are not found."""
    await auth.registration.create_admin(email="eve@example.com", password=PASSWORD)
    other = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    theirs = await auth.login.with_password(email="eve@example.com", password=PASSWORD, client=CLIENT)
    principal, second, eve = [await auth.access_tokens.verify(each.access.value) for each in (pair, other, theirs)]
    await auth.sessions.revoke(principal, second.session_id, client=CLIENT)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(other.access.value)
    for unknown in (second.session_id, eve.session_id, eve.user_id):
        with pytest.raises(NotFound):
            await auth.sessions.revoke(principal, unknown, client=CLIENT)
    clock.advance(timedelta(days=7))
    with pytest.raises(NotFound):
        await auth.sessions.revoke(principal, principal.session_id, client=CLIENT)


async def test_a_further_session_ends_the_oldest(auth: Auth, work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """With twenty sessions, each further login ends the oldest session with its access token."""
    pairs = []
    for _ in range(22):
        pairs.append(await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT))
        clock.advance(MOMENT)
    for pair in pairs[:2]:
        with pytest.raises(InvalidAccessToken):
            await auth.access_tokens.verify(pair.access.value)
    principals = [await auth.access_tokens.verify(pair.access.value) for pair in pairs[2:]]
    assert len(await auth.sessions.sessions(principals[0])) == 20
    assert list(work.sessions.reasons.values()) == ["too_many_sessions"] * 2


async def test_revoked_ids_are_published_directly_and_by_a_task(
    work: MemoryAuthUnitOfWork, clock: FrozenClock, auth: Auth, pair: TokenPair
) -> None:
    """The revoked ids are published at once, and by a task of the same transaction in case the process dies."""
    await auth.sessions.logout(access_token=pair.access.value, client=CLIENT)
    (task,) = [task for task in work.outbox.tasks if task.task == "auth.publish_revocations"]
    (session,) = work.sessions.rows.values()
    assert task.payload == {"members": [f"sid:{session.id}"]}
    revocations = MemoryRevocations(clock, ttl=timedelta(seconds=930))
    other = build_fake_auth(work, clock=clock, revocations=revocations)
    await other.session_issuer.publish_revocations(Delivery(session.id, task.task), members=[f"sid:{session.id}"])
    assert await revocations.contains_any([f"sid:{session.id}"])
    await auth.sessions.logout(access_token=pair.access.value, client=CLIENT)
    assert len([task for task in work.outbox.tasks if task.task == "auth.publish_revocations"]) == 1


async def test_theft_is_audited_and_reported_to_the_owner(
    auth: Auth, work: MemoryAuthUnitOfWork, pair: TokenPair, clock: FrozenClock
) -> None:
    """A reused token is audited without an actor, ends the access tokens and sends a mail."""
    second = await refresh(auth, pair)
    clock.advance(GRACE + MOMENT)
    thief = Client("203.0.113.66", "curl")
    with pytest.raises(RefreshReused):
        await auth.sessions.refresh(str(pair.refresh), client=thief)
    with pytest.raises(InvalidAccessToken):
        await auth.access_tokens.verify(second.access.value)
    (user,), (session,) = work.users.rows.values(), work.sessions.rows.values()
    assert work.audit.events[-2:] == [
        AuditEvent(
            AuditAction.REFRESH_REUSE_DETECTED,
            Outcome.FAILURE,
            reason="refresh_reused",
            subject_id=user.id,
            session_id=session.id,
            client=thief,
        ),
        AuditEvent(
            AuditAction.SESSION_REVOKED,
            reason="refresh_reused",
            subject_id=user.id,
            session_id=session.id,
            client=thief,
        ),
    ]
    mails = [task.payload for task in work.outbox.tasks if task.task == "auth.send_mail"]
    assert mails == [{"mail": "session_stolen", "subject_id": str(user.id)}]


async def test_a_copied_token_is_detected_after_the_grace_period(
    auth: Auth, pair: TokenPair, clock: FrozenClock
) -> None:
    """The session ends when a thief uses a copied token after the grace period."""
    owner = await refresh(auth, pair)
    clock.advance(GRACE)
    # Within the grace period the thief gets the owner's successor, like a tab that lost the response.
    thief = await refresh(auth, pair)
    assert thief.refresh == owner.refresh
    owner = await refresh(auth, owner)
    clock.advance(GRACE + MOMENT)
    with pytest.raises(RefreshReused):
        await refresh(auth, thief)
    with pytest.raises(SessionRevoked):
        await refresh(auth, owner)


async def test_a_copied_token_is_detected_when_both_use_the_successor(
    auth: Auth, pair: TokenPair, clock: FrozenClock
) -> None:
    """A thief within the grace period gets the same successor as the owner; its second use reveals the theft."""
    await refresh(auth, pair)
    copied = await refresh(auth, pair)  # the thief, within the grace period: the same token
    ahead = await refresh(auth, copied)
    clock.advance(timedelta(minutes=14))
    with pytest.raises(RefreshReused):
        await refresh(auth, copied)  # the owner
    with pytest.raises(SessionRevoked):
        await refresh(auth, ahead)


async def test_a_slow_database_does_not_look_like_theft(
    auth: Auth, pair: TokenPair, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace period is compared with the arrival of the request, not with the time of the transaction."""
    second = await refresh(auth, pair)
    prove = auth.sessions._verify_token

    async def hang(token: str) -> Any:
        clock.advance(timedelta(minutes=5))
        return await prove(token)

    clock.advance(GRACE)
    monkeypatch.setattr(auth.sessions, "_verify_token", hang)
    assert (await refresh(auth, pair)).refresh == second.refresh


async def test_session_operations_are_audited_and_counted(work: MemoryAuthUnitOfWork, clock: FrozenClock) -> None:
    """Refreshes and revocations are audited with user and client; every call is counted with its outcome."""
    operations = RecordingOperations()
    auth = build_fake_auth(work, clock=clock, operations=operations)
    await auth.registration.create_admin(email=EMAIL, password=PASSWORD)
    pair = await auth.login.with_password(email=EMAIL, password=PASSWORD, client=CLIENT)
    pair = await refresh(auth, pair)
    await auth.sessions.logout(refresh_token=str(pair.refresh), client=CLIENT)
    with pytest.raises(SessionRevoked):
        await refresh(auth, pair)
    (user,), (session,) = work.users.rows.values(), work.sessions.rows.values()
    known: Any = {"actor_id": user.id, "subject_id": user.id, "session_id": session.id, "client": CLIENT}
    assert work.audit.events[-2:] == [
        AuditEvent(AuditAction.TOKEN_REFRESHED, **known),
        AuditEvent(AuditAction.LOGOUT, reason="logout", **known),
    ]
    counted = {key: count for key, count in operations.counts.items() if key[0] in {"refresh", "logout"}}
    assert counted == {("refresh", "ok"): 1, ("refresh", "session_revoked"): 1, ("logout", "ok"): 1}


async def test_a_profile_contains_address_and_roles(auth: Auth, pair: TokenPair) -> None:
    """The profile contains the address and the roles."""
    principal = await auth.access_tokens.verify(pair.access.value)
    profile = await auth.accounts.profile(principal.user_id)
    assert (profile.id, profile.email, profile.roles) == (principal.user_id, EMAIL, ("admin",))


async def test_a_token_of_a_deleted_account_is_invalid(auth: Auth, pair: TokenPair) -> None:
    """A token with a valid signature is refused when its account does not exist."""
    with pytest.raises(InvalidAccessToken):
        await auth.accounts.profile(pair.refresh.id)

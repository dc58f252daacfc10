"""Purging of expired rows in batches, with memory and PostgreSQL."""

from tequipy_auth import Session

from .entities import HOUR, NOW, Work, make_one_time_token, make_refresh_token, make_registration, make_session, new_id


async def test_expired_rows_are_purged_in_batches(work: Work, session: Session) -> None:
    """Only rows that expired before the time are deleted, no more than the limit each time."""
    ended = [make_session(session.user_id) for _ in range(3)]
    async with work() as unit:
        for number in range(3):
            await unit.registrations.add(make_registration(f"{number}@example.com"))
            await unit.one_time_tokens.add(make_one_time_token(new_id()), keep=3)
            await unit.sessions.add(ended[number])
            await unit.refresh_tokens.add(make_refresh_token(ended[number]))
            await unit.sessions.revoke(ended[number].id, at=NOW, reason="logout")
    for moment, counts in ((NOW - HOUR, (0, 0, 0)), (NOW, (0, 0, 2)), (NOW + HOUR, (2, 2, 2)), (NOW + HOUR, (1, 1, 0))):
        async with work() as unit:
            purged = (
                await unit.registrations.purge(before=moment, limit=2),
                await unit.one_time_tokens.purge(before=moment, limit=2),
                await unit.sessions.purge(before=moment, limit=2),
            )
        assert purged == counts, moment
    async with work() as unit:
        assert await unit.sessions.get(session.id) is None, "it was idle for too long"

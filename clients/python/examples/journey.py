"""Register, verify the address by the mailed link, log in, read the account, refresh, and log out.

`python journey.py http://127.0.0.1:8000 you@example.com`; reads the link, or its token, from standard input.
"""

import asyncio
import sys

from tequipy_client import Session, SessionEnded, Unauthenticated
from tequipy_client.contract.api import accounts_and_sessions as accounts
from tequipy_client.contract.models import RegisterBody, VerifyEmailBody

PASSWORD = "correct horse battery staple"  # noqa: S105 -- of an example


async def main(url: str, email: str) -> None:
    """Print what happens."""
    async with Session(url) as session:
        await accounts.register(session.http, body=RegisterBody(email=email, password=PASSWORD, name="Ada"))
        print("registered; the link in the mail:", flush=True)
        link = (await asyncio.to_thread(sys.stdin.readline)).strip()
        await accounts.verify_email(session.http, body=VerifyEmailBody(token=link.rpartition("#token=")[2]))
        print("verified")

        await session.login(email, PASSWORD)
        me = await accounts.get_me(session.http)
        print(f"logged in: {me.email}, verified: {me.email_verified}")
        await session.refresh()
        sessions = await accounts.list_sessions(session.http)
        print(f"refreshed: {len(sessions.items)} session")

        ended = session.credentials
        await session.logout()
        try:
            await accounts.get_me(session.http)
        except Unauthenticated as problem:
            print(f"logged out: {problem.code}")
    async with Session(url, credentials=ended) as session:
        try:
            await accounts.get_me(session.http)
        except SessionEnded as problem:
            print(f"ended: {problem.code}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

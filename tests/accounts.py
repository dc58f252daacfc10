"""Accounts of the tests on real processes, and the tokens in the mails to them."""

import asyncio
import re
from collections.abc import Iterable

import asyncpg  # type: ignore[import-untyped]  # -- asyncpg ships no types
import httpx

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import Deployment, eventually
from tequipy_devstack.proving.traffic import PASSWORD


def create_accounts(deployment: Deployment, emails: Iterable[str], **settings: str) -> None:
    """Create verified accounts with `PASSWORD` through an API process with these settings."""

    async def verify() -> None:
        connection = await asyncpg.connect(deployment.environment["TEQUIPY_DATABASE__URL"].replace("+asyncpg", ""))
        await connection.execute("update auth.users set email_verified = true")
        await connection.close()

    with deployment.api(TEQUIPY_AUTH__REGISTRATION_MODE="open", **settings) as api:
        for email in emails:
            body = {"email": email, "password": PASSWORD}
            assert httpx.post(f"{api.url}/api/v1/auth/register", json=body, timeout=60).status_code == 201
    asyncio.run(verify())


def mailed_token(mails: MailSink, email: str, page: str) -> str:
    """Wait for a mail that links to a page of the frontend, and return the token of the newest link."""
    tokens: list[str] = []

    def has_arrived() -> bool:
        bodies = [mail.get_body(("plain",)) for mail in mails.messages(email)]
        texts = [str(body.get_content()) for body in bodies if body]
        tokens[:] = [token for text in texts for token in re.findall(rf"{page}#token=([\w.-]+)", text)]
        return bool(tokens)

    eventually("the mail has arrived", has_arrived)
    return tokens[-1]

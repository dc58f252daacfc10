"""Routes of auth, the account of these tests, and what their responses contain."""

from http.cookies import Morsel, SimpleCookie

import httpx

from tequipy_auth import Auth
from tequipy_auth.tasks import SEND_MAIL, build_handlers
from tequipy_auth.testing import MemoryAuthUnitOfWork
from tequipy_platform import Delivery
from tequipy_platform.testing import RecordingMailer

EMAIL, PASSWORD = "ada@example.com", "correct horse battery staple"
GOOD = {"email": EMAIL, "password": PASSWORD}
AUTH = "/api/v1/auth"
LOGIN, REFRESH, LOGOUT, ME, SESSIONS = (f"{AUTH}/{name}" for name in ("login", "refresh", "logout", "me", "sessions"))


def code_of(answer: httpx.Response, status: int) -> str:
    """Return the code of an uncacheable error response with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    code: str = answer.json()["code"]
    return code


def morsel(answer: httpx.Response, name: str = "__Host-refresh") -> Morsel[str]:
    """Return the only cookie of this name that a response sets."""
    (cookie,) = [SimpleCookie(header) for header in answer.headers.get_list("set-cookie") if header.startswith(name)]
    return cookie[name]


def is_deletion(answer: httpx.Response) -> bool:
    """Return whether the response deletes the refresh cookie with the attributes that `__Host-` requires."""
    cookie = morsel(answer)
    return (cookie.value, cookie["max-age"], cookie["path"], cookie["secure"]) == ("", "0", "/", True)


async def log_in(client: httpx.AsyncClient, **more: object) -> httpx.Response:
    answer = await client.post(LOGIN, json=GOOD | more)
    assert answer.status_code == 200, answer.text
    return answer


def bearer(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def mailed_tokens(auth: Auth, work: MemoryAuthUnitOfWork) -> dict[str, str]:
    """Run the mail tasks and return the tokens of the links, by purpose."""
    mailer = RecordingMailer()
    send_mail = build_handlers(auth, mailer)[SEND_MAIL]
    for asked in [task for task in work.outbox.tasks if task.task == SEND_MAIL.name]:
        await send_mail(Delivery(work.new_id(), asked.task), **asked.payload)
    work.outbox.tasks.clear()
    links = [mail.text.partition("#token=") for mail in mailer.mails if "#token=" in mail.text]
    return {url.rpartition("/")[2]: token.split()[0] for url, _, token in links}

"""Mails in the shipped processes: none is lost if the server refuses the sender, and a victim gets only a few."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import REGISTER, Api, Deployment, Load, count, eventually
from tequipy_devstack.proving.traffic import ADMIN, PASSWORD
from tequipy_devstack.servers import PostgresServer

# The module's deployment has one outbox, so these tests must run one after another.
pytestmark = [pytest.mark.xdist_group("mail_server"), pytest.mark.timeout(600)]
QUICK = [pytest.mark.prove, pytest.mark.quick]


class MoodySink(MailSink):
    """A mail sink that refuses every MAIL command while `answer` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.answer: str | None = None
        self.refused = 0

    async def handle_MAIL(  # noqa: N802 -- aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.answer is not None:
            self.refused += 1
            return self.answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MoodySink]:
    with MoodySink(tmp_path / "mail") as server:
        yield server


def unsettled(postgres: PostgresServer) -> int:
    """Return the number of unsettled messages."""
    query = "SELECT count(*) FROM platform.outbox WHERE settled_at IS NULL"
    return int(postgres.execute(query, database="tequipy").strip())


def ask(api: Api, route: str, body: dict[str, str], *, address: str = "127.0.0.1") -> int:
    """Post to a route of auth from an address of this machine; return the status."""
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(transport=transport, base_url=api.url) as client:
        return client.post(f"/api/v1/auth/{route}", json=body).status_code


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        pytest.param("530 5.7.0 Authentication required", 4, id="short", marks=QUICK),
        pytest.param("530 5.7.0 Authentication required", 60, id="long", marks=pytest.mark.prove),
        pytest.param("550 5.7.1 Daily sending quota exceeded", 60, id="quota", marks=pytest.mark.prove),
    ],
)
def test_mails_wait_while_the_server_refuses_the_sender(
    deployment: Deployment, postgres: PostgresServer, server: MoodySink, answer: str, seconds: int
) -> None:
    """After 20 registrations while the server replies 530 (or a quota) for a minute, 20 mails arrive, each once."""
    server.answer = answer
    with deployment.relay(), deployment.worker(TEQUIPY_MAIL__SMTP_URL=server.url) as worker, deployment.api() as api:
        with Load(api.url, [REGISTER], rate=20 / seconds) as load:
            load.send(20)
        eventually("every mail has been refused", lambda: server.refused >= 20)
        server.answer, repaired = None, time.monotonic()
        eventually("every message is over", lambda: unsettled(postgres) == 0, within=240)
        took = time.monotonic() - repaired
        log = worker.log.read_text()
    ids = [str(mail["Message-ID"]) for mail in server.messages()]
    print(
        f"\n{answer!r} for {seconds} s under 20 registrations ({count(load.samples)}), {server.refused} refusals; "
        f"repaired: {len(set(ids))} mails arrived, {len(ids) - len(set(ids))} twice, the last {took:.1f} s later"
    )
    assert count(load.samples) == {"202 accepted": 20}
    assert len(ids) == len(set(ids)) == 20
    assert "mail_sender_refused" in log, "the error is logged"


@pytest.mark.parametrize(
    "registrations", [pytest.param(4, id="short", marks=QUICK), pytest.param(20, id="long", marks=pytest.mark.prove)]
)
def test_a_victim_is_not_flooded(
    deployment: Deployment, postgres: PostgresServer, server: MoodySink, registrations: int
) -> None:
    """60 registrations of one address from three client addresses (20 an hour each) give 202 and five mails."""
    victim = f"victim{registrations}@example.com"
    body = {"email": victim, "password": PASSWORD}
    addresses = [f"127.0.{registrations}.{number}" for number in (2, 3, 4)]
    with (
        deployment.relay(),
        deployment.worker(TEQUIPY_MAIL__SMTP_URL=server.url),
        deployment.api(TEQUIPY_RATE_LIMITS__REGISTER="20/3600") as api,
    ):
        answers = Counter(ask(api, "register", body, address=each) for each in addresses * registrations)
        eventually("every message is over", lambda: unsettled(postgres) == 0, within=120)
    mails = len(server.messages(victim))
    print(
        f"\n{answers.total()} registrations of one address from three client addresses: {dict(answers)}, {mails} mails"
    )
    assert answers == {202: 3 * registrations}
    assert mails == 5


def test_resends_leave_the_owner_the_reset(deployment: Deployment, postgres: PostgresServer, server: MoodySink) -> None:
    """Another person's 20 resend requests for a verified address mail nothing and do not prevent the owner's reset."""
    with deployment.relay(), deployment.worker(TEQUIPY_MAIL__SMTP_URL=server.url), deployment.api() as api:
        resends = Counter(ask(api, "verify-email/resend", {"email": ADMIN}) for _ in range(20))
        forgot = ask(api, "password/forgot", {"email": ADMIN})
        eventually("every message is over", lambda: unsettled(postgres) == 0, within=120)
    subjects = [str(mail["Subject"]) for mail in server.messages(ADMIN)]
    print(
        f"\n20 resends for a verified address ({dict(resends)}), then a forgotten password ({forgot}): mails {subjects}"
    )
    assert (resends, forgot) == ({202: 20}, 202)
    assert subjects == ["Reset your password"]

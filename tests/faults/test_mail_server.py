"""A mail server that refuses the sender, in the shipped processes: what was asked for meanwhile arrives afterwards."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from tequipy_devstack.mail_sink import MailSink
from tequipy_devstack.proving import REGISTER, House, Load, count, eventually
from tequipy_devstack.servers import PostgresServer

# The module's house has one outbox, so these tests run one after the other.
pytestmark = [pytest.mark.xdist_group("mail_server"), pytest.mark.timeout(600)]


class MoodySink(MailSink):
    """A mail sink that refuses every MAIL command while it has an `answer`."""

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


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        pytest.param("530 5.7.0 Authentication required", 4, id="short"),
        pytest.param("530 5.7.0 Authentication required", 60, id="long", marks=pytest.mark.prove),
        pytest.param("550 5.7.1 Daily sending quota exceeded", 60, id="quota", marks=pytest.mark.prove),
    ],
)
def test_mails_wait_while_the_server_refuses_the_sender(
    house: House, postgres: PostgresServer, server: MoodySink, answer: str, seconds: int
) -> None:
    """20 registrations while the server answers 530 (or a quota) for a minute: mended, it gets 20 mails, each once."""

    def unsettled() -> int:
        query = "SELECT count(*) FROM platform.outbox WHERE settled_at IS NULL"
        return int(postgres.execute(query, database="tequipy").strip())

    server.answer = answer
    with house.relay(), house.worker(TEQUIPY_MAIL__SMTP_URL=server.url) as worker, house.api() as api:
        with Load(api.url, [REGISTER], rate=20 / seconds) as load:
            load.send(20)
        eventually("every mail has been refused", lambda: server.refused >= 20)
        server.answer, mended = None, time.monotonic()
        eventually("every message is over", lambda: unsettled() == 0, within=240)
        took = time.monotonic() - mended
        log = worker.log.read_text()
    ids = [str(mail["Message-ID"]) for mail in server.messages()]
    print(
        f"\n{answer!r} for {seconds} s under 20 registrations ({count(load.samples)}), {server.refused} refusals; "
        f"mended: {len(set(ids))} mails arrived, {len(ids) - len(set(ids))} twice, the last {took:.1f} s later"
    )
    assert count(load.samples) == {"202 accepted": 20}
    assert len(ids) == len(set(ids)) == 20
    assert "mail_sender_refused" in log, "the operator is told"

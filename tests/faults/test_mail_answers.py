"""What the worker does for each answer of a mail server: mails, attempts and dead letters, through the real outbox."""

import email
import email.policy
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.proving import Api, Authority, Deployment, Program, SmtpStub, eventually, in_background
from tequipy_devstack.proving.apps import program
from tequipy_devstack.proving.smtp_stub import Session
from tequipy_devstack.proving.traffic import PASSWORD
from tequipy_devstack.servers import PostgresServer

# The module's deployment has one outbox, so these tests must run one after another.
pytestmark = [
    *(pytest.mark.xdist_group("mail_answers"), pytest.mark.timeout(600)),
    pytest.mark.prove,
]
HOST = "127.0.0.1"
MAILS = 3
ALWAYS = 10**6
REMOVED, WRONG_CERTIFICATE = "250-stub\r\n250 AUTH PLAIN", "wrong certificate"


@dataclass(frozen=True)
class Fault:
    """An answer at one step of the first sessions of each mail, and what shall come of these mails."""

    step: str
    answer: str | None
    times: int = 2
    attempts: int = 3
    copies: int = 1
    """How often the server has each mail in the end."""
    dead: bool = False
    hangs: bool = False
    """Whether the server does not answer anything after the answer."""
    alerts: int = 0
    """How many attempts at each mail are logged as an error."""

    @property
    def domain(self) -> str:
        """The domain of the recipients whose mails get the answer."""
        return f"{re.sub('[^a-z0-9]', '', f'{self.step}{self.answer}{self.hangs}'.lower())}.example.com"


FAULTS = [
    Fault("NONE", "every mail is accepted", times=0, attempts=1),
    Fault("RCPT", "451 4.7.1 greylisted"),
    Fault("CONTENT", "451 4.3.0 later"),
    Fault("RCPT", None),
    Fault("CONTENT", None, copies=3),
    Fault("QUIT", None, attempts=1),
    Fault("RCPT", "550 5.1.1 no such user", times=ALWAYS, attempts=1, copies=0, dead=True),
    Fault("RCPT", "550 5.1.1 no such user", times=ALWAYS, attempts=1, copies=0, dead=True, hangs=True),
    Fault("CONTENT", "552 5.3.4 too big", times=ALWAYS, attempts=1, copies=0, dead=True),
    Fault("RCPT", "550 5.7.1 relaying denied", alerts=2),
    Fault("DATA", "554 5.7.1 quota exceeded", alerts=2),
]
"""Answers after the recipient is known: the mails of all of them are sent at the same time."""
FAULTS_OF_ALL = [
    Fault("GREETING", None),
    Fault("GREETING", "421 4.3.2 closing"),
    Fault("EHLO", REMOVED, alerts=2),
    Fault("STARTTLS", WRONG_CERTIFICATE, alerts=2),
    Fault("AUTH", "535 5.7.8 bad credentials", alerts=2),
    Fault("MAIL", "530 5.7.0 authentication required", alerts=2),
]
"""Answers before the recipient is known: as many sessions get them, whatever mail they are for."""


class FaultyServer(SmtpStub):
    """Offers STARTTLS and requires a login; answers with the faults."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self._wrong = Authority(folder / "other").issue(HOST)
        super().__init__(certificate=self.authority.issue(HOST))
        self._given: Counter[str] = Counter()
        self._of_all: Fault | None = None
        self._left = 0
        self._sessions_with_fault: set[int] = set()
        self.mended = False

    def begin(self, fault: Fault) -> None:
        """Answer the next sessions with a fault of all mails."""
        self._of_all, self._left = fault, fault.times * MAILS

    def reply_to(self, command: str, session: Session) -> str | None:
        if command == "GREETING" and self._left > 0:
            self._left -= 1
            self._sessions_with_fault.add(session.number)
        fault = self._fault_of(session)
        if fault is not None and fault.hangs and command in {"RSET", "QUIT"}:
            return None
        if fault is None or fault.step != command or fault.answer == WRONG_CERTIFICATE:
            return super().reply_to(command, session)
        self._given[session.recipient] += 1
        return fault.answer

    def certificate_for(self, session: Session) -> Path | None:
        fault = self._fault_of(session)
        is_wrong = fault is not None and fault.answer == WRONG_CERTIFICATE
        return self._wrong if is_wrong else super().certificate_for(session)

    def _fault_of(self, session: Session) -> Fault | None:
        if session.number in self._sessions_with_fault:
            return self._of_all
        domain = session.recipient.partition("@")[2]
        fault = next((fault for fault in FAULTS if fault.domain == domain), None)
        if fault is None or self.mended or self._given[session.recipient] >= fault.times:
            return None
        return fault


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with in_background(FaultyServer(tmp_path_factory.mktemp("authority"))) as server:
        yield server


@pytest.fixture(scope="module")
def settings(server: FaultyServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the settings of mail, with a frame of the deployment's own."""
    templates = tmp_path_factory.mktemp("templates")
    (templates / "base.html").write_text('{% extends "original/base.html" %}{% block header %}ACME{% endblock %}')
    return {
        "TEQUIPY_MAIL__SMTP_URL": server.url("smtp+starttls", credentials="ada:hunter2@"),
        "TEQUIPY_MAIL__SSL_ROOT_CERT": str(server.authority.certificate),
        "TEQUIPY_MAIL__TEMPLATES": str(templates),
        "TEQUIPY_MAIL__TIMEOUT": "3",  # enough for a busy machine, on which an attempt more would change the counts
        "TEQUIPY_WORKER__CONCURRENCY": "4",  # most of the time is spent waiting for the server
    }


@pytest.fixture(scope="module")
def worker(deployment: Deployment, settings: Mapping[str, str]) -> Iterator[Program]:
    with deployment.relay(), deployment.worker(**settings) as worker:
        yield worker


@pytest.fixture(scope="module")
def api(deployment: Deployment) -> Iterator[Api]:
    with deployment.api() as api:
        yield api


class Mails:
    """The mails of a fault: in the server, in the outbox, and in the worker's log."""

    def __init__(self, fault: Fault, server: FaultyServer, postgres: PostgresServer, worker: Program) -> None:
        self.fault = fault
        self._server = server
        self._postgres = postgres
        self._worker = worker

    def ask_for(self, api: Api) -> None:
        for number in range(MAILS):
            body = {"email": f"user{number}@{self.fault.domain}", "password": PASSWORD}
            assert httpx.post(f"{api.url}/api/v1/auth/register", json=body).status_code == 202

    def received(self) -> list[EmailMessage]:
        """Return the mails that the server has."""
        parsed = [email.message_from_bytes(content, policy=email.policy.default) for content in self._server.mails]
        return [mail for mail in parsed if str(mail["To"]).endswith(f"@{self.fault.domain}")]

    def messages(self) -> list[list[str]]:
        """Return id, state and number of attempts of each message."""
        query = (
            "SELECT o.id, o.state, o.attempts FROM platform.outbox o"  # noqa: S608 -- our own names
            " JOIN auth.registrations r ON r.id = (o.payload->>'subject_id')::uuid"
            f" WHERE r.email LIKE '%@{self.fault.domain}'"
        )
        return [line.split("|") for line in self._postgres.execute(query, database="tequipy").splitlines()]

    def states(self) -> Counter[str]:
        return Counter(state for _, state, _ in self.messages())

    def are_settled(self) -> bool:
        return set(self.states()) <= {"done", "dead"} and self.states().total() == MAILS

    def are_done(self) -> bool:
        return self.states() == {"done": MAILS}

    def outcome(self) -> Mapping[str, int]:
        """Return what came of them."""
        messages, copies = self.messages(), Counter(str(mail["Message-ID"]) for mail in self.received())
        alerts = [line for line in self._worker.log.read_text().splitlines() if '"mail_sender_refused"' in line]
        return {
            "mails": len(copies),
            "copies": copies.total(),
            "attempts": sum(int(attempts) for _, _, attempts in messages),
            "dead letters": self.states()["dead"],
            "alerts": sum(message_id in line for line in alerts for message_id, _, _ in messages),
        }

    def expected(self) -> Mapping[str, int]:
        each = {
            "mails": min(self.fault.copies, 1),
            "copies": self.fault.copies,
            "attempts": self.fault.attempts,
            "dead letters": int(self.fault.dead),
            "alerts": self.fault.alerts,
        }
        return {name: MAILS * number for name, number in each.items()}

    def describe(self) -> str:
        answer = {None: "nothing", REMOVED: "STARTTLS is removed"}.get(self.fault.answer) or self.fault.answer or ""
        answer += ", then nothing" if self.fault.hangs else ""
        return f"{self.fault.step:9} {answer:38}" + "".join(f"{number:14}" for number in self.outcome().values())


def test_each_answer_of_a_mail_server_has_its_outcome(
    deployment: Deployment, api: Api, worker: Program, server: FaultyServer, postgres: PostgresServer
) -> None:
    """4xx, silence and refusals of the sender are retried, and mails arrive; refusals of a mail are dead letters."""
    all_mails = [Mails(fault, server, postgres, worker) for fault in FAULTS]
    for mails in all_mails:
        mails.ask_for(api)
    for mails in all_mails:
        eventually(f"the mails of {mails.fault} are settled", mails.are_settled, within=120)
    for fault in FAULTS_OF_ALL:
        server.begin(fault)
        mails = Mails(fault, server, postgres, worker)
        mails.ask_for(api)
        eventually(f"the mails of {fault} are settled", mails.are_settled, within=120)
        all_mails.append(mails)
    columns = "".join(f"{name:>14}" for name in all_mails[0].outcome())
    print(f"\n{MAILS} mails each: step, answer{columns:>90}")
    print("\n".join(mails.describe() for mails in all_mails))
    for mails in all_mails:
        assert mails.outcome() == mails.expected(), mails.fault
        for mail in mails.received():
            html = mail.get_body(("html",))
            assert html is not None
            assert "ACME" in html.get_content(), "the deployment's frame"
    assert "hunter2" not in worker.log.read_text()

    server.mended = True
    environment = deployment.environment
    subprocess.run(
        [program("tequipy-worker"), "dead-letters", "retry", "--all"],
        env=environment,
        cwd=deployment.folder,
        check=True,
    )
    for mails in [mails for mails in all_mails if mails.fault.dead]:
        eventually(f"the dead letters of {mails.fault} have been sent", mails.are_done)
        assert len(mails.received()) == MAILS

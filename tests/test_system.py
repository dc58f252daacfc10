"""The whole system as users meet it: `make dev` with real processes, and the README's walkthrough."""

import re
import subprocess
from uuid import uuid4

import pytest

from .local_stack import Stack, eventually
from .public_modules import ROOT

# One stack serves all these tests, so they must run in one pytest process.
pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]


def readme_session(stack: Stack) -> str:
    """Return the README's shell session with the URL and mailbox of the tested stack."""
    block: str
    (block,) = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert "http://127.0.0.1:8000" in block
    assert ".dev/mail" in block
    return block.replace("http://127.0.0.1:8000", stack.url).replace(".dev/mail", str(stack.home / "mail"))


def test_the_readme_walkthrough_works(stack: Stack) -> None:
    """The README's commands give the documented responses, and the old cookie is refused at the end."""
    result = subprocess.run(
        ["/bin/bash", "-c", readme_session(stack)], capture_output=True, text=True, check=True, timeout=120
    )
    statuses = re.findall(r"^HTTP/1.1 (\d{3})", result.stdout, flags=re.MULTILINE)
    assert statuses == ["202", "204", "200", "200", "204", "401"], result.stdout
    assert '"email":"journey-' in result.stdout
    assert "session_revoked" in result.stdout


def test_one_correlation_id_is_in_all_logs_and_the_mail(stack: Stack) -> None:
    """The id sent with a registration is in the API's log, in the worker's log and in the mail."""
    correlation_id = f"trace-{uuid4().hex}"
    stack.register(correlation_id)
    eventually("the mail has arrived", lambda: len(stack.mails(correlation_id)) == 1)
    eventually("the worker of mails has logged it", lambda: bool(stack.lines("mailer", correlation_id)))
    assert stack.lines("api", correlation_id)


def test_a_killed_worker_loses_no_mail(stack: Stack) -> None:
    """After `kill -9` of the whole worker right after a registration, the mail arrives, with one Message-ID."""
    correlation_id = f"killed-{uuid4().hex}"
    victims = stack.worker_processes()
    assert victims
    stack.register(correlation_id)
    for victim in victims:
        victim.kill()
    eventually("the mail has arrived all the same", lambda: bool(stack.mails(correlation_id)), within=120)
    assert len({mail["Message-ID"] for mail in stack.mails(correlation_id)}) == 1

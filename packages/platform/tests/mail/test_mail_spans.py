"""The span of a mail."""

import pytest
from pydantic import SecretStr

from tequipy_devstack.proving import SmtpStub
from tequipy_observability import SpanKind, entry_span
from tequipy_observability.testing import recorded_spans
from tequipy_platform import Mail, MailRejected
from tequipy_platform.mail import MailSettings, SmtpMailer

MAIL = Mail("ann@example.com", "Hello", "Hello\n", "<1@example.com>")


async def test_a_mail_is_a_span_without_its_address() -> None:
    """Handing over a mail is a step of its task; one that is refused has failed, by the kind of the error."""
    with recorded_spans() as recorder:
        async with SmtpStub() as stub:
            mailer = SmtpMailer(MailSettings(smtp_url=SecretStr(stub.url(credentials=""))))
            with entry_span("process", kind=SpanKind.CONSUMER, traceparent=None):
                await mailer.send(MAIL)
                stub.replies["RCPT"] = "550 5.1.1 no such user ann@example.com"
                with pytest.raises(MailRejected):
                    await mailer.send(MAIL)
    process, sent, refused = recorder.spans
    assert sent.parent_id == refused.parent_id == process.span_id
    assert [(span.name, span.kind, span.failed) for span in (sent, refused)] == [
        ("SMTP", SpanKind.CLIENT, False),
        ("SMTP", SpanKind.CLIENT, True),
    ]
    assert str(refused.attributes["error.type"]).endswith("MailRejected")
    assert "ann@example.com" not in str(recorder.spans)

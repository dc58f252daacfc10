"""Classification of SMTP refusals: does one concern the mail or the sender."""

import pytest

from tequipy_platform.mail.smtp_replies import Refusal, SmtpPhase, classify

PERMANENT = [
    (SmtpPhase.RCPT, 550, "5.1.1 <a@b.example>: Recipient address rejected: User unknown"),
    (SmtpPhase.RCPT, 550, "no such user"),
    (SmtpPhase.RCPT, 550, "5.2.1 The account is disabled"),
    (SmtpPhase.RCPT, 552, "5.2.2 Mailbox full"),
    (SmtpPhase.RCPT, 556, "5.1.10 Recipient domain has a null MX"),
    (SmtpPhase.RCPT, 553, "mailbox name not allowed"),
    (SmtpPhase.RCPT, 550, "5.1.0 Address rejected"),
    (SmtpPhase.RCPT, 550, "5.7.17 Mailbox owner has changed"),
    (SmtpPhase.MAIL, 552, "5.3.4 Message size exceeds fixed limit"),
    (SmtpPhase.MAIL, 552, "too big"),
    (SmtpPhase.DATA, 552, "too much mail data"),
    (SmtpPhase.DATA, 554, "5.6.0 the content cannot be read"),
    (SmtpPhase.DATA, 550, "5.1.1 no such user"),
]
SENDER = [
    (SmtpPhase.CONNECT, 554, "5.7.1 no service for you"),
    (SmtpPhase.CONNECT, 550, "EHLO name is not accepted"),
    (SmtpPhase.AUTH, 535, "5.7.8 Authentication credentials invalid"),
    (SmtpPhase.AUTH, 534, "5.7.9 Authentication mechanism is too weak"),
    (SmtpPhase.AUTH, 538, "5.7.11 Encryption required for requested authentication mechanism"),
    (SmtpPhase.AUTH, 550, "5.1.1 whatever it says"),
    (SmtpPhase.MAIL, 530, "5.7.0 Authentication required"),
    (SmtpPhase.MAIL, 530, "Authentication required"),
    (SmtpPhase.MAIL, 550, "5.1.8 the sender's domain does not exist"),
    (SmtpPhase.MAIL, 550, "no such user here"),
    (SmtpPhase.MAIL, 553, "5.7.1 not owned by user"),
    (SmtpPhase.RCPT, 530, "5.7.0 Must issue a STARTTLS command first"),
    (SmtpPhase.RCPT, 530, "Authentication required"),
    (SmtpPhase.RCPT, 550, "5.7.1 Relaying denied"),
    (SmtpPhase.RCPT, 550, "relay not permitted"),
    (SmtpPhase.RCPT, 553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
    (SmtpPhase.RCPT, 550, "5.4.5 Daily user sending limit exceeded"),
    (SmtpPhase.RCPT, 550, "5.1.90 daily limit for message recipients"),
    (SmtpPhase.RCPT, 503, "5.5.1 MAIL first"),
    (SmtpPhase.RCPT, 521, "this host takes no mail"),
    (SmtpPhase.DATA, 550, "5.7.28 there is an unusual rate of mail from you"),
    (SmtpPhase.DATA, 554, "5.7.1 the message looks like spam"),
    (SmtpPhase.DATA, 554, "transaction failed"),
    (SmtpPhase.DATA, 550, "rejected by policy"),
    (SmtpPhase.DATA, 550, "5.2.252 SendAsDenied"),
]
TRANSIENT = [
    (SmtpPhase.CONNECT, 421, "4.3.2 shutting down"),
    (SmtpPhase.AUTH, 454, "4.7.0 Temporary authentication failure"),
    (SmtpPhase.MAIL, 452, "4.3.1 insufficient storage"),
    (SmtpPhase.RCPT, 450, "4.2.0 <a@b.example>: greylisted, try again in 300 seconds"),
    (SmtpPhase.RCPT, 451, "4.7.1 greylisted"),
    (SmtpPhase.RCPT, 452, "5.1.1 a code that contradicts itself"),
    (SmtpPhase.DATA, 451, "later"),
]


@pytest.mark.parametrize(
    ("phase", "code", "text", "refusal"),
    [
        *((*reply, Refusal.PERMANENT) for reply in PERMANENT),
        *((*reply, Refusal.SENDER) for reply in SENDER),
        *((*reply, Refusal.TRANSIENT) for reply in TRANSIENT),
    ],
)
def test_only_refusals_of_the_mail_are_permanent(phase: SmtpPhase, code: int, text: str, refusal: Refusal) -> None:
    """Real replies: an unknown mailbox or a too large mail is final; faults of the sender and any 4xx are not."""
    assert classify(phase, code, text) is refusal


@pytest.mark.parametrize("phase", [SmtpPhase.CONNECT, SmtpPhase.AUTH])
@pytest.mark.parametrize("code", range(500, 600))
def test_no_refusal_before_the_mail_is_permanent(phase: SmtpPhase, code: int) -> None:
    """A refusal before the server knows the mail is never final."""
    assert classify(phase, code, "5.1.1") is Refusal.SENDER

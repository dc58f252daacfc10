"""Whom a refusal of the mail server concerns: the recipient or the message, the sender, or only this moment."""

import re
from enum import Enum
from typing import Final


class SmtpPhase(Enum):
    """The command that was refused (RFC 5321, section 4.1.1); the value names it in logs."""

    CONNECT = "connect"
    """The connection itself, EHLO or STARTTLS."""
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


class Refusal(Enum):
    """Whom a refusal concerns, and so what becomes of the mail."""

    TRANSIENT = "transient"
    """This moment (any 4xx: greylisting, a full queue, a rate): the mail waits."""
    PERMANENT = "permanent"
    """This recipient or this message: no further attempt can succeed."""
    SENDER = "sender"
    """Our credentials, our right to relay, our quota or reputation: the mail waits, and an operator has to act."""


_PERMANENT_REPLY: Final = 500
_RCPT_CODES: Final = frozenset({550, 551, 552, 553, 556})
"""What RFC 5321 (section 4.3.2) and RFC 7504 let a server answer to RCPT when it refuses the mailbox."""
_TOO_BIG_CODE: Final = 552
_TOO_BIG: Final = frozenset({(2, 3), (3, 4)})
"""Enhanced codes of a message over the recipient's or the server's size limit."""
_CONCERNS_MAIL: Final = _TOO_BIG | {
    *((1, detail) for detail in (1, 2, 3, 4, 6, 10)),  # the destination address; 7 and 8 are about the sender's
    *((2, detail) for detail in (1, 2, 4)),  # the recipient's mailbox
    *((6, detail) for detail in range(11)),  # the content
    *((7, detail) for detail in (2, 17, 18)),  # a mailing list, or an owner who has changed (RFC 7293)
}
"""Subject and detail of the codes of RFC 3463 that concern this recipient or this message; unknown details do not."""
_ENHANCED: Final = re.compile(r"\s*5\.(\d{1,3})\.(\d{1,3})(?![\d.])|.*\(#5\.(\d{1,3})\.(\d{1,3})\)", re.DOTALL)
"""At the start of the text (RFC 2034), or in brackets at its end, as qmail writes it."""
_SAYS_SENDER: Final = re.compile(r"relay|auth|polic|prohibit|sender|block|denied|spam|list|limit", re.IGNORECASE)
"""Words of servers that refuse a sender at RCPT without an enhanced code ("550 relay not permitted" of Exim)."""


def classify(phase: SmtpPhase, code: int, text: str) -> Refusal:
    """Return whom a reply concerns, by its code, its enhanced code (RFC 3463) and the command that it answers.

    What is not clearly about the recipient or the message is the sender's: the mail then waits, and nothing is lost.
    """
    if code < _PERMANENT_REPLY:
        return Refusal.TRANSIENT
    enhanced = enhanced_code(text)
    if phase is SmtpPhase.MAIL:
        about_mail = enhanced in _TOO_BIG if enhanced else code == _TOO_BIG_CODE
    elif phase is SmtpPhase.RCPT and (enhanced is None or enhanced[1] == 0):
        about_mail = code in _RCPT_CODES and not _SAYS_SENDER.search(text)
    elif phase in {SmtpPhase.RCPT, SmtpPhase.DATA}:
        about_mail = enhanced in _CONCERNS_MAIL if enhanced else code == _TOO_BIG_CODE
    else:
        about_mail = False
    return Refusal.PERMANENT if about_mail else Refusal.SENDER


def enhanced_code(text: str) -> tuple[int, int] | None:
    """Return subject and detail of a permanent enhanced status code (`5.subject.detail`), None where there is none."""
    match = _ENHANCED.match(text)
    if match is None:
        return None
    subject, detail = (group for group in match.groups() if group is not None)
    return int(subject), int(detail)

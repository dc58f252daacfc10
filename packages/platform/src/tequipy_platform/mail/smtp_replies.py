"""Classification of SMTP replies: does a refusal concern the mail, the sender, or only this moment."""

import re
from enum import Enum
from typing import Final


class SmtpPhase(Enum):
    """The SMTP command that was refused (RFC 5321, section 4.1.1); log events show its value."""

    CONNECT = "connect"
    """The connection itself, EHLO or STARTTLS."""
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


class Refusal(Enum):
    """The subject of a refusal; it decides whether the mail is retried."""

    TRANSIENT = "transient"
    """Only this moment (any 4xx: greylisting, a full queue, a rate limit): retry."""
    PERMANENT = "permanent"
    """This recipient or this message: no further attempt can succeed."""
    SENDER = "sender"
    """The sender's credentials, right to relay, quota or reputation: retry, and an operator has to act."""


_PERMANENT_REPLY: Final = 500
_RCPT_CODES: Final = frozenset({550, 551, 552, 553, 556})
"""Replies to RCPT that refuse the mailbox (RFC 5321, section 4.3.2, and RFC 7504)."""
_TOO_BIG_CODE: Final = 552
_TOO_BIG: Final = frozenset({(2, 3), (3, 4)})
"""Enhanced codes for a message that exceeds the size limit of the recipient or the server."""
_CONCERNS_MAIL: Final = _TOO_BIG | {
    *((1, detail) for detail in (1, 2, 3, 4, 6, 10)),  # the destination address; 7 and 8 are about the sender's
    *((2, detail) for detail in (1, 2, 4)),  # the recipient's mailbox
    *((6, detail) for detail in range(11)),  # the content
    *((7, detail) for detail in (2, 17, 18)),  # a mailing list, or an owner who has changed (RFC 7293)
}
"""Subject and detail of the enhanced codes (RFC 3463) that concern the recipient or the message."""
_ENHANCED: Final = re.compile(r"\s*5\.(\d{1,3})\.(\d{1,3})(?![\d.])|.*\(#5\.(\d{1,3})\.(\d{1,3})\)", re.DOTALL)
"""An enhanced code at the start of the text (RFC 2034), or in brackets at its end, as qmail writes it."""
_SAYS_SENDER: Final = re.compile(r"relay|auth|polic|prohibit|sender|block|denied|spam|list|limit", re.IGNORECASE)
"""Words of servers that refuse a sender at RCPT without an enhanced code (Exim: "550 relay not permitted")."""


def classify(phase: SmtpPhase, code: int, text: str) -> Refusal:
    """Return what a reply concerns, decided by its code, its enhanced code (RFC 3463) and the refused command.

    A reply that does not clearly concern the recipient or the message counts as one about the sender: the mail is then
    retried and not lost.
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
    """Return subject and detail of a permanent enhanced status code (`5.subject.detail`), or None."""
    match = _ENHANCED.match(text)
    if match is None:
        return None
    subject, detail = (group for group in match.groups() if group is not None)
    return int(subject), int(detail)

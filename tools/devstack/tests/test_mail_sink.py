"""The mail sink."""

import smtplib

from tequipy_devstack.mail_sink import MailSink


def send(sink: MailSink, to: str, body: str) -> None:
    with smtplib.SMTP(sink.host, sink.port) as client:
        client.sendmail("from@example.com", [to], f"To: {to}\r\nSubject: Hello\r\n\r\n{body}\r\n")


def test_each_mail_becomes_one_file_as_it_was_sent(mail_sink: MailSink) -> None:
    """A mail sent by SMTP is one complete `.eml` file; mails are found by recipient, oldest first."""
    send(mail_sink, "ann@example.com", "one")
    send(mail_sink, "bob@example.com", "other")
    send(mail_sink, "ann@example.com", "two")
    assert [mail.get_content().strip() for mail in mail_sink.messages(to="ann@example.com")] == ["one", "two"]
    assert not list(mail_sink.folder.glob("*.new"))


def test_a_recipient_cannot_choose_the_folder(mail_sink: MailSink) -> None:
    """Special characters in an address cannot change the file's folder."""
    send(mail_sink, "../../up@example.com", "out")
    (mail,) = mail_sink.messages(to="up@example.com")
    assert mail["Subject"] == "Hello"
    assert any(file.name.endswith(".._.._up@example.com.eml") for file in mail_sink.folder.iterdir())

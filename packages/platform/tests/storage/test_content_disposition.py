"""Names of downloads: `Content-Disposition` by RFC 6266 and RFC 8187."""

import email.message
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from tequipy_platform import content_disposition

# Text that people give files, and what attacks with names consist of
NAMES = st.text(alphabet=st.characters(), max_size=300) | st.lists(
    st.sampled_from(["a", "é", "レ", "/", "\\", '"', ";", "%", "%22", ".", " ", "\r\n", "\u202e", "\ud800", "😀", "="])
).map("".join)


def parse(header: str) -> tuple[str, str]:
    """Return the file name as a client finds it that knows RFC 8187, and as an old one does that does not."""
    kind, options = parse_options_header(header)
    message = email.message.Message()
    message["Content-Disposition"] = header
    plain = message.get_filename()
    assert kind == message.get_content_disposition() == "attachment"
    assert plain is not None
    return options["filename"], plain


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("report.csv", 'attachment; filename="report.csv"'),
        ("my report.csv", 'attachment; filename="my report.csv"'),
        ("Zürich.pdf", "attachment; filename=\"Zurich.pdf\"; filename*=UTF-8''Z%C3%BCrich.pdf"),
        ("レポート", "attachment; filename=\"download\"; filename*=UTF-8''%E3%83%AC%E3%83%9D%E3%83%BC%E3%83%88"),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("50%41.txt", "attachment; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
        ("a;b.txt", "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%3Bb.txt"),
        ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
        ("C:\\temp\\x.exe", 'attachment; filename="C:_temp_x.exe"'),
        ("a\r\nSet-Cookie: b", 'attachment; filename="a__Set-Cookie: b"'),
        ("annexe\u202efdp.exe", 'attachment; filename="annexe_fdp.exe"'),
        ("", 'attachment; filename="download"'),
        ("..", 'attachment; filename="download"'),
        (".htaccess ", 'attachment; filename="htaccess"'),
        ("x" * 300 + ".csv", f'attachment; filename="{"x" * 146}.csv"'),
    ],
)
def test_names(name: str, header: str) -> None:
    """Harmless names are kept; what a file system, a header or a reader could misunderstand is not."""
    assert content_disposition(name) == header


@example("a" * 149 + "\u0344")
@example("\ufb03" * 300)
@given(NAMES)
def test_any_text_is_a_name_that_clients_can_read(name: str) -> None:
    """For any text the header is short printable ASCII, and clients find the same name in it, safe and not empty."""
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 2100
    for found in parse(header):
        assert found
        assert not set(found) & set("/\\\r\n\0\u202e")
        assert found == found.strip(" .")
        assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in found)


@given(st.from_regex(r"[\w-]{1,50}( [\w-]{1,50})?\.[a-z]{1,4}", fullmatch=True))
def test_ordinary_names_are_kept(name: str) -> None:
    """A name of letters and digits of any script, with a space and an ending, arrives as it is, in NFC."""
    assert parse(content_disposition(name))[0] == unicodedata.normalize("NFC", name)

"""The web server of the local stack, its mailbox, and the example of a front end."""

import http.client
import json
import re
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from tequipy_devstack.pages import FrontEnd, Mailbox, PageServer
from tequipy_devstack.pages.mailbox import linked
from tequipy_devstack.processes import DevstackError


def store(folder: Path, content: bytes, number: int = 0) -> str:
    """Store a mail as the sink does, and return the name of its file."""
    name = f"20261127T1100{number // 60:02}.{number % 60:06}-ada@example.com.eml"
    (folder / name).write_bytes(content)
    return name


def mail(subject: str = "Hello", to: str = "ada@example.com", correlation_id: str = "") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "tequipy@example.com", to, subject
    if correlation_id:
        message["X-Correlation-ID"] = correlation_id
    message.set_content("Open https://app.example.com/verify-email#token=ev1.a.b.\n")
    return message


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with PageServer(0, Mailbox(tmp_path)) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def subjects(page: httpx.Response) -> list[str]:
    assert page.status_code == 200
    return re.findall(r'<a href="/mails/[^"]+">([^<]*)</a>', page.text)


def test_mails_are_listed_newest_first_in_pages(client: httpx.Client, tmp_path: Path) -> None:
    """A page of the list has fifty mails, the newest first, and links to the older and newer ones."""
    for number in range(60):
        store(tmp_path, mail(f"Mail {number}").as_bytes(), number)
    first = client.get("/")
    assert subjects(first) == [f"Mail {number}" for number in range(59, 9, -1)]
    (older,) = re.findall(r'<a href="([^"]+)" rel="next">', first.text)
    second = client.get(older)
    assert subjects(second) == [f"Mail {number}" for number in range(9, -1, -1)]
    assert 'rel="prev"' in second.text
    assert 'rel="next"' not in second.text
    for page in ("-1", "x", "9" * 9, "4²"):
        assert client.get("/", params={"page": page}).status_code == 200


def test_mails_are_found_by_address_and_correlation_id(client: httpx.Client, tmp_path: Path) -> None:
    """A part of an address, in any case, and a whole correlation id find mails, together or alone; others do not."""
    store(tmp_path, mail("One", to="Ada <ada@example.com>", correlation_id="abc.1").as_bytes(), 1)
    store(tmp_path, mail("Two", to="bob@example.com, Eve <eve@example.com>", correlation_id="abc.2").as_bytes(), 2)
    assert subjects(client.get("/", params={"address": "EVE@example"})) == ["Two"]
    assert subjects(client.get("/", params={"correlation_id": "abc.1"})) == ["One"]
    assert subjects(client.get("/", params={"correlation_id": "abc"})) == []
    assert subjects(client.get("/", params={"address": "ada", "correlation_id": "abc.2"})) == []
    assert subjects(client.get("/", params={"address": "tequipy@example.com"})) == ["Two", "One"]


def test_a_mail_is_shown_with_its_parts(client: httpx.Client, tmp_path: Path) -> None:
    """Text with links, HTML in a frame, attachments, and the correlation id are on the page; so are no scripts."""
    message = mail("Rechnung für März", correlation_id="abc.1")
    message.add_alternative('<p onclick="run()">Hello "you"</p>', subtype="html")
    message.add_attachment(b"1234", maintype="application", subtype="pdf", filename="März.pdf")
    page = client.get(f"/mails/{store(tmp_path, message.as_bytes())}")
    assert page.status_code == 200
    link = "https://app.example.com/verify-email#token=ev1.a.b"
    for text in (
        "<h2>Rechnung für März</h2>",
        f'<a href="{link}" target="_blank">{link}</a>.',
        "März.pdf (application/pdf, 4 bytes)",
        'href="/?correlation_id=abc.1"',
        'sandbox="allow-popups allow-popups-to-escape-sandbox"',
        "&lt;p onclick=&#34;run()&#34;&gt;Hello &#34;you&#34;&lt;/p&gt;",
    ):
        assert text in page.text, text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "<script" not in page.text


HOSTILE: list[bytes] = [
    b"",
    b"\x00\xff\xfe" * 1000,
    b"Subject: =?utf-8?b?////?= =?x?q?=\r\nTo: <<>>@@;,\r\nFrom: \xff\r\n\r\n\xff",
    b"Content-Type: text/plain; charset=no-such-charset\r\n\r\nh\xe9",
    b'Content-Type: text/plain; charset="utf-16\r\n\r\n\xd8',
    b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a",
    b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n%%%not base64%%%",
    b"Content-Type: message/rfc822\r\n\r\n" * 1500,
    b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(1500)),
    b"Subject: " + b"x" * 500_000 + b"\r\n\r\n",
    b"To: a@example.com\r\n" * 5000 + b"\r\n",
    b'Subject: </title><script>alert(1)</script>\r\nX-Correlation-ID: "><script>alert(2)</script>\r\n\r\n<script>',
    b"Subject: large\r\n\r\n" + b"<script>alert(3)</script>\n" * 500_000,
]


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:30]))
def test_no_mail_breaks_the_pages(client: httpx.Client, tmp_path: Path, content: bytes) -> None:
    """Malformed, deeply nested and huge mails are listed and shown, bounded, and none adds a script."""
    name = store(tmp_path, content)
    store(tmp_path, mail("Intact").as_bytes(), 1)
    listed, shown = client.get("/"), client.get(f"/mails/{name}")
    assert "Intact" in listed.text
    for page in (listed, shown):
        assert page.status_code == 200
        assert "<script" not in page.text
        assert len(page.content) < 8 * 1024 * 1024


def test_a_page_is_of_a_mail_in_the_folder(client: httpx.Client, tmp_path: Path) -> None:
    """Other files and other folders cannot be read, whatever the path."""
    folder = tmp_path / "other.eml"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path.parent / "outside.eml").write_text("secret")
    for path in ("nothing.eml", "secret.txt", "other.eml", "..%2Foutside.eml", "%00.eml", "x" * 300 + ".eml", ""):
        assert client.get(f"/mails/{path}").status_code == 404, path
    assert client.get("/other").status_code == 404
    assert client.post("/").status_code == 501
    assert (client.head("/").status_code, client.head("/").content) == (200, b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("evil.example:{port}", 421),
        ("127.0.0.1", 421),
        ("127.0.0.1.evil.example:{port}", 421),
        ("127.0.0.1:99999", 400),
        ("", 421),
    ],
)
def test_a_name_of_another_host_is_refused(client: httpx.Client, host: str, status: int) -> None:
    """A page of a foreign name that leads to this machine (DNS rebinding) gets nothing."""
    port = client.base_url.port
    assert client.get("/", headers={"Host": host.format(port=port)}).status_code == status


def test_a_server_that_sends_rubbish_is_survived(client: httpx.Client) -> None:
    """A request that is not HTTP gets an error, and the next one is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port or 0, timeout=10)
    connection.putrequest("GET", "//[", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status in {400, 421}
    connection.close()
    assert client.get("/").status_code == 200


def test_a_taken_port_is_one_line() -> None:
    """A second server on a port is refused with the port's number."""
    with (
        PageServer(0, lambda _: None) as server,
        pytest.raises(DevstackError, match=f"port {server.port} is taken"),
        PageServer(server.port, lambda _: None),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no link", "no link"),
        ("a <b> & http://a/?b=1&c=2, x", "a &lt;b&gt; &amp; {http://a/?b=1&amp;c=2}, x"),
        ("(https://a.example/b)", "({https://a.example/b})"),
        ('https://a/"onclick="x', "{https://a/}&#34;onclick=&#34;x"),
        ("javascript:alert(1) https://", "javascript:alert(1) https://"),
    ],
)
def test_links_in_a_text_can_be_followed(text: str, expected: str) -> None:
    """http and https URLs become links without the punctuation behind them; everything else is escaped."""
    link: Callable[[re.Match[str]], str] = lambda match: f'<a href="{match[1]}" target="_blank">{match[1]}</a>'  # noqa: E731
    assert linked(text) == re.sub(r"\{(.*?)\}", link, expected)


def test_the_front_end_is_served_at_the_paths_of_mailed_links(tmp_path: Path) -> None:
    """The page is at `/` and at the paths of links; its configuration has the API under the name that was asked for."""
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "app.js").write_text("code")
    (tmp_path.parent / "secret.js").write_text("secret")
    with PageServer(0, FrontEnd(tmp_path, api_port=8000)) as server, httpx.Client(base_url=server.url) as client:
        for path in ("/", "/verify-email", "/reset-password", "/confirm-email", "/undo-email", "/end-session"):
            assert client.get(path).text == "page"
        assert client.get("/app.js").headers["Content-Type"].startswith("text/javascript")
        for path in ("/nothing", "/..%2Fsecret.js", "/%00"):
            assert client.get(path).status_code == 404
        for host in ("127.0.0.1", "localhost"):
            answer = client.get("/config.json", headers={"Host": f"{host}:{server.port}"})
            assert json.loads(answer.content) == {"api": f"http://{host}:8000/api/v1"}
            assert f"connect-src 'self' http://{host}:8000;" in answer.headers["Content-Security-Policy"]

"""The mails of all packages: HTML that says the same as the text, in every mail program, and loads nothing."""

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequipy_platform import MailText
from tequipy_platform.mail import JinjaMailTemplates
from tequipy_worker.catalogue import MAIL_PACKAGES

ROOT = Path(__file__).parents[1]
TEMPLATES = {name: JinjaMailTemplates(name, sender_name="Example & Co") for name in MAIL_PACKAGES}
MAILS = [(package, name) for package, templates in TEMPLATES.items() for name in templates.samples()]
URL = re.compile(r"https?://\S+")
# Tags and attributes with which a mail program would load something, or send something to somebody.
LOADING_TAGS = {
    *("img", "script", "link", "iframe", "object", "embed", "video", "audio", "form", "input", "base", "svg")
}
LOADING_ATTRIBUTES = {"src", "srcset", "background", "poster", "action", "ping", "http-equiv"}
ENOUGH_CONTRAST = 4.5  # WCAG 2.2, criterion 1.4.3


class Page(HTMLParser):
    """The tags, links, styles and texts of an HTML document; texts are separated as a reader sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str]] = []
        self.links: list[tuple[str, str]] = []
        self.title = self.text = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "a":
            self.links.append((dict(attrs)["href"] or "", ""))
        if tag != "meta":
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag, "tags are closed in order"

    def handle_data(self, data: str) -> None:
        if "title" in self._inside:
            self.title += data
        elif "body" in self._inside:
            self.text += data
        if "a" in self._inside:
            href, text = self.links.pop()
            self.links.append((href, text + data))


def render(package: str, name: str, **changed: str) -> MailText:
    templates = TEMPLATES[package]
    return templates.render(name, **(dict(templates.samples()[name]) | changed))


def page(package: str, name: str, **changed: str) -> Page:
    html = render(package, name, **changed).html
    assert html is not None
    return Page(html)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_worker_knows_every_package_with_mails() -> None:
    """The worker checks and previews the mails of each package that has templates."""
    assert {path.parent.name for path in ROOT.glob("packages/*/src/*/templates")} == set(MAIL_PACKAGES)


@pytest.mark.parametrize("package", MAIL_PACKAGES)
def test_every_mail_has_text_html_and_sample_values(package: str) -> None:
    """Beside the sample values there are two templates for each mail, and no other file."""
    (folder,) = ROOT.glob(f"packages/*/src/{package}/templates")
    expected = {f"{name}.{kind}" for name in TEMPLATES[package].samples() for kind in ("txt", "html")}
    assert {path.name for path in folder.iterdir()} == {*expected, "samples.json"}


@pytest.mark.parametrize(("package", "name"), MAILS)
def test_html_says_what_the_text_says(package: str, name: str) -> None:
    """Each paragraph of the text is in the HTML, in the same order, and both have the same links."""
    mail, html = render(package, name), page(package, name)
    shown, at = words(html.text), 0
    for paragraph in map(words, mail.text.split("\n\n")):
        at = shown.find(paragraph, at)
        assert at >= 0, paragraph
    assert {href for href, _ in html.links} == set(URL.findall(mail.text))
    assert html.title == mail.subject


@pytest.mark.parametrize(("package", "name"), MAILS)
def test_the_address_of_every_link_is_visible(package: str, name: str) -> None:
    """Each link of the text is shown as text too, for readers who check it or copy it into another program."""
    links = page(package, name).links
    assert {href for href, _ in links} == set(URL.findall(render(package, name).text))
    assert {href for href, text in links if words(text) == href} == {href for href, _ in links}


@pytest.mark.parametrize(("package", "name"), MAILS)
def test_html_loads_nothing(package: str, name: str) -> None:
    """Nothing is loaded from elsewhere, which would tell others who reads the mail, and nothing is executed."""
    html = page(package, name)
    assert {tag for tag, _ in html.tags} & LOADING_TAGS == set()
    assert {key for key, _ in html.attributes if key in LOADING_ATTRIBUTES or key.startswith("on")} == set()
    styles = [value for key, value in html.attributes if key == "style"]
    assert not any(re.search(r"url\(|@import|expression|image", style) for style in styles)
    assert "style" not in {tag for tag, _ in html.tags}, "mail programs drop style sheets"


@pytest.mark.parametrize(("package", "name"), MAILS)
def test_text_can_be_read_in_light_and_dark_mode(package: str, name: str) -> None:
    """A colour of text comes with its own background and enough contrast, or is inherited; both modes are supported."""
    html = page(package, name)
    for style in [value for key, value in html.attributes if key == "style"]:
        given_ = dict(re.findall(r"(?:^|; )([\w-]+): ([^;]+)", style))
        text, behind = given_.get("color", "inherit"), given_.get("background-color")
        assert (text == "inherit") == (behind is None), style
        assert behind is None or contrast(text, behind) >= ENOUGH_CONTRAST, style
    assert ("content", "light dark") in html.attributes


def contrast(*colours: str) -> float:
    """Return the contrast ratio of two colours of the form #rrggbb (WCAG 2.2)."""
    lights = []
    for colour in colours:
        parts = [int(colour[start:end], 16) / 255 for start, end in pairwise((1, 3, 5, 7))]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize(("package", "name"), MAILS)
def test_the_language_is_declared(package: str, name: str) -> None:
    """Screen readers find the language on the document, and within it, because some programs drop its outer tags."""
    html = page(package, name)
    assert Counter(html.attributes)["lang", "en"] == 2
    assert [tag for tag, names in html.tags if "lang" in names] == ["html", "div"]
    assert all("role" in names for tag, names in html.tags if tag == "table"), "tables of the layout are none of data"


hostile = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=30) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x>',
        "' onclick='x",
        "&lt;b&gt;",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "<!--",
        "]]>",
    ]
)


@pytest.mark.parametrize(("package", "name"), MAILS)
@given(value=hostile)
def test_values_cannot_change_the_document(package: str, name: str, value: str) -> None:
    """Any value is shown as it is: the document has the same tags and attributes, whatever is in the values."""
    html = page(package, name, **dict.fromkeys(TEMPLATES[package].samples()[name], value))
    assert html.tags == page(package, name).tags
    assert words(value) in words(html.text)
    assert {href for href, _ in html.links} == ({value} if page(package, name).links else set())

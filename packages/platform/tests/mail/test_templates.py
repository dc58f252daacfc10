"""Templates of mails: subject, text and HTML are filled, and a template that cannot be rendered is an error."""

import sys
from pathlib import Path

import pytest

from tequipy_platform.mail import JinjaMailTemplates


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JinjaMailTemplates:
    folder = tmp_path / "example_mails" / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "hello.txt").write_text(
        "{% block subject %}Hello {{ name }}{% endblock %}\n"
        "{% block text %}\nHello {{ name }},\n\nbye\n{% endblock %}\n"
    )
    (folder / "hello.html").write_text("<p>Hello {{ name }}</p>")
    (folder / "plain.txt").write_text("{% block subject %}Plain{% endblock %}{% block text %}Text{% endblock %}")
    (folder / "headless.txt").write_text("{% block text %}Text{% endblock %}")
    (folder / "evil.txt").write_text(
        "{% block subject %}x{% endblock %}{% block text %}{{ ''.__class__.__mro__ }}{% endblock %}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "example_mails", raising=False)  # another test created it in another folder
    return JinjaMailTemplates("example_mails")


def test_a_template_fills_subject_and_texts(templates: JinjaMailTemplates) -> None:
    """The text is unescaped, values in the HTML are escaped, and without an HTML template there is no HTML."""
    rendered = templates.render("hello", name="<Ann>")
    assert (rendered.subject, rendered.text) == ("Hello <Ann>", "Hello <Ann>,\n\nbye\n")
    assert rendered.html == "<p>Hello &lt;Ann&gt;</p>"
    assert templates.render("plain").html is None


@pytest.mark.parametrize("name", ["nothing", "hello", "headless", "evil", "../__init__"])
def test_a_template_that_cannot_be_rendered_is_a_lookup_error(templates: JinjaMailTemplates, name: str) -> None:
    """An unknown template, a missing value, a missing block or an attempt to leave the sandbox raises `LookupError`."""
    with pytest.raises(LookupError):
        templates.render(name)

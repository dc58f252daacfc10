"""Mail templates: one contract suite for reporting's real templates and the fake."""

import pytest

from tequipy_platform import MailTemplates
from tequipy_platform.mail import JinjaMailTemplates
from tequipy_reporting.testing import PlainMailTemplates

SAMPLES = JinjaMailTemplates("tequipy_reporting").samples()


@pytest.fixture(params=[PlainMailTemplates, lambda: JinjaMailTemplates("tequipy_reporting")], ids=["plain", "jinja"])
def templates(request: pytest.FixtureRequest) -> MailTemplates:
    built: MailTemplates = request.param()
    return built


@pytest.mark.parametrize("name", SAMPLES)
def test_a_mail_has_a_subject_and_its_values(templates: MailTemplates, name: str) -> None:
    """Each mail is rendered with its values: a subject of one line, and a text that contains all of them."""
    mail = templates.render(name, **SAMPLES[name])
    assert mail.subject == " ".join(mail.subject.split()) != ""
    assert all(str(value) in mail.text for value in SAMPLES[name].values())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_missing_value_is_an_error(templates: MailTemplates, name: str) -> None:
    """Without one of its values no mail is rendered."""
    for missing in SAMPLES[name]:
        with pytest.raises(LookupError):
            templates.render(name, **{key: value for key, value in SAMPLES[name].items() if key != missing})


def test_an_unknown_mail_is_an_error(templates: MailTemplates) -> None:
    """A mail without a template is refused."""
    with pytest.raises(LookupError):
        templates.render("birthday", public_url="https://app.example.com")

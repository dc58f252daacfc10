"""Mail templates: one contract suite for the real templates of each package and the fake."""

import pytest

from tequipy_platform import MailTemplates
from tequipy_platform.mail import JinjaMailTemplates
from tequipy_platform.testing import PlainMailTemplates
from tequipy_worker.catalogue import MAIL_PACKAGES

SAMPLES = {package: JinjaMailTemplates(package).samples() for package in MAIL_PACKAGES}
BUILT = pytest.mark.parametrize("build", [PlainMailTemplates, JinjaMailTemplates], ids=["plain", "jinja"])
MAILS = pytest.mark.parametrize(("package", "name"), [(each, name) for each in MAIL_PACKAGES for name in SAMPLES[each]])
Build = type[PlainMailTemplates] | type[JinjaMailTemplates]


@BUILT
@MAILS
def test_a_mail_has_a_subject_and_its_values(build: Build, package: str, name: str) -> None:
    """Each mail is rendered with its values: a subject of one line, and a text that contains all of them."""
    values = SAMPLES[package][name]
    mail = build(package).render(name, **values)
    assert mail.subject == " ".join(mail.subject.split()) != ""
    assert all(str(value) in mail.text for value in values.values())


@BUILT
@MAILS
def test_a_missing_value_is_an_error(build: Build, package: str, name: str) -> None:
    """Without one of its values no mail is rendered."""
    templates, values = build(package), SAMPLES[package][name]
    for missing in values:
        with pytest.raises(LookupError):
            templates.render(name, **{key: value for key, value in values.items() if key != missing})


@BUILT
@pytest.mark.parametrize("package", MAIL_PACKAGES)
def test_an_unknown_mail_is_an_error(build: Build, package: str) -> None:
    """A mail without a template is refused."""
    templates: MailTemplates = build(package)
    with pytest.raises(LookupError):
        templates.render("birthday", public_url="https://app.example.com")

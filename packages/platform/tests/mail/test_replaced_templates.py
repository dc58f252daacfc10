"""Templates of a deployment: what they replace, and that a broken one ends the process at its start."""

import os
import sys
from pathlib import Path

import pytest

from tequipy_platform.mail import MailSettings, build_mail_templates, refuse_broken_templates

PACKAGE = "example_shop"
VARIABLE = "TEQUIPY_MAIL__TEMPLATES"


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a package with two mails."""
    folder = tmp_path / PACKAGE / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    for name in ("receipt", "reminder"):
        (folder / f"{name}.txt").write_text(
            f"{{% block subject %}}Your {name}{{% endblock %}}{{% block text %}}Pay {{{{ amount }}}}.{{% endblock %}}"
        )
        (folder / f"{name}.html").write_text(
            '{% extends "base.html" %}{% block text %}<p>Pay {{ amount }}.</p>{% endblock %}'
        )
    (folder / "samples.json").write_text('{"receipt": {"amount": "€ 5"}, "reminder": {"amount": "€ 7"}}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)


@pytest.fixture
def brand(tmp_path: Path) -> Path:
    folder = tmp_path / "brand"
    (folder / PACKAGE).mkdir(parents=True)
    return folder


def settings(brand: Path | None) -> MailSettings:
    return MailSettings(templates=brand, sender="Example Shop <shop@example.com>")


def html(brand: Path | None, name: str = "receipt") -> str:
    text = build_mail_templates(settings(brand), PACKAGE).render(name, amount="<5>").html
    assert text is not None
    return text


def check(brand: Path) -> None:
    refuse_broken_templates(settings(brand), [PACKAGE], variable=VARIABLE)


def faults(brand: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines with which the process ends."""
    with pytest.raises(SystemExit) as end:
        check(brand)
    assert end.value.code == os.EX_CONFIG
    return capsys.readouterr().err.splitlines()


def test_the_frame_shows_the_sender(brand: Path) -> None:
    """Without a template of its own a deployment is named by its sender; the values are escaped."""
    for folder in (None, brand):
        assert ">Example Shop</p>" in html(folder)
        assert "<p>Pay &lt;5&gt;.</p>" in html(folder)


def test_one_file_replaces_the_frame_of_all_mails(brand: Path) -> None:
    """`base.html` of the folder frames each mail; it can extend the one that it replaces, block by block."""
    (brand / "base.html").write_text(
        '{% extends "original/base.html" %}{% block header %}<b>ACME</b>{% endblock %}'
        '{% block footer %}{% include "address.html" %}{% endblock %}{% block lang %}de{% endblock %}'
    )
    (brand / "address.html").write_text("<p>{{ sender_name }}, 1 Main Street</p>")
    check(brand)
    for name in ("receipt", "reminder"):
        text = html(brand, name)
        assert text.index("<b>ACME</b>") < text.index("Pay &lt;5&gt;.") < text.index("1 Main Street")
        assert text.count('lang="de"') == 2
        assert ">Example Shop<" not in text


def test_a_mail_is_replaced_in_the_folder_of_its_package(brand: Path) -> None:
    """A file in the package's folder replaces one template, in whole or by blocks; the others stay."""
    (brand / PACKAGE / "receipt.txt").write_text(
        '{% extends "original/receipt.txt" %}{% block subject %}ACME thanks you{% endblock %}'
    )
    (brand / PACKAGE / "receipt.html").write_text("<p>{{ subject }}: {{ amount }}</p>")
    check(brand)
    templates = build_mail_templates(settings(brand), PACKAGE)
    receipt = templates.render("receipt", amount="<5>")
    assert (receipt.subject, receipt.text) == ("ACME thanks you", "Pay <5>.\n")
    assert receipt.html == "<p>ACME thanks you: &lt;5&gt;</p>"
    assert templates.render("reminder", amount="<5>").subject == "Your reminder"


def test_a_file_beside_the_folders_replaces_no_mail(brand: Path) -> None:
    """`receipt.html` directly in the folder, which other templates may include, is not the receipt of a package."""
    (brand / "receipt.html").write_text("<p>common</p>")
    (brand / "receipt.txt").write_text("{% block subject %}common{% endblock %}{% block text %}common{% endblock %}")
    (brand / PACKAGE / "reminder.html").write_text('{% include "brand.html" %}')
    (brand / "brand.html").write_text("<p>included</p>")
    mail = build_mail_templates(settings(brand), PACKAGE).render("receipt", amount="5")
    assert (mail.subject, mail.text) == ("Your receipt", "Pay 5.\n")
    assert "common" not in html(brand)
    assert html(brand, "reminder") == "<p>included</p>"


def test_a_folder_that_was_mounted_by_kubernetes_is_read(brand: Path) -> None:
    """A ConfigMap is a folder of links into `..data`, which are followed and are no unknown files."""
    data = brand / PACKAGE / "..2026_11_26"
    data.mkdir()
    (data / "receipt.html").write_text("<p>mounted {{ amount }}</p>")
    (brand / PACKAGE / "..data").symlink_to(data.name)
    (brand / PACKAGE / "receipt.html").symlink_to("..data/receipt.html")
    check(brand)
    assert html(brand) == "<p>mounted &lt;5&gt;</p>"


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("base.html", "{% block text %}", "mail template 'receipt': base.html, line 1: "),
        ("base.html", "\n\n{{ x", "mail template 'receipt': base.html, line 3: unexpected end of template"),
        (f"{PACKAGE}/receipt.txt", "{{ total }}", "mail template 'receipt': 'total' is undefined"),
        (f"{PACKAGE}/receipt.html", "{{ total }}", "mail template 'receipt': 'total' is undefined"),
        (f"{PACKAGE}/receipt.html", '{% extends "bse.html" %}', "mail template 'receipt': there is no bse.html"),
        (f"{PACKAGE}/receipt.txt", "Pay {{ amount }}.", "mail template 'receipt' has no block 'subject'"),
        (
            f"{PACKAGE}/receipt.txt",
            "{% block subject %}a\nb{% endblock %}{% block text %}{% endblock %}",
            "mail template 'receipt': the subject should be one line",
        ),
        (
            f"{PACKAGE}/receipt.txt",
            "{% block subject %} {% endblock %}{% block text %}{% endblock %}",
            "mail template 'receipt': the subject should be one line",
        ),
        (f"{PACKAGE}/receipt.html", "{{ amount + 1 }}", "mail template 'receipt': TypeError"),
        (f"{PACKAGE}/receipt.html", "{{ amount.__class__ }}", "mail template 'receipt': access to attribute"),
        (f"{PACKAGE}/receipt.html", "{% include 'example_shop/receipt.html' %}", "mail template 'receipt': "),
        (f"{PACKAGE}/receipt.html", b"\xff\xfe", "mail template 'receipt': UnicodeDecodeError"),
    ],
)
def test_a_broken_template_ends_the_process_at_its_start(
    brand: Path, capsys: pytest.CaptureFixture[str], file: str, text: str | bytes, fault: str
) -> None:
    """A template that cannot be rendered is one line with status 78, and not a failure of the first mail."""
    (brand / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    lines = [line for line in faults(brand, capsys) if "receipt" in line]
    assert len(lines) == 1, "one line for each mail"
    assert lines[0].startswith(f"{VARIABLE}: {PACKAGE}: {fault}")


def test_a_missing_folder_ends_the_process(brand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there, or is a file, is a fault; the default needs none."""
    (brand / "file").touch()
    for folder, reason in ((brand / "none", "No such file or directory"), (brand / "file", "Not a directory")):
        assert faults(folder, capsys) == [f"{VARIABLE}: should name a folder that can be read: {reason}"]
    refuse_broken_templates(MailSettings(), [PACKAGE], variable=VARIABLE)


def test_a_file_that_replaces_nothing_is_a_warning(brand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt file is reported with the nearest name, and no fault: a rollback meets files of a newer release."""
    (brand / PACKAGE / "reciept.html").touch()
    (brand / "example_shpo").mkdir()
    (brand / "logo.html").touch()
    check(brand)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {VARIABLE}: {PACKAGE}/reciept.html replaces no template; did you mean receipt.html?",
        f"warning: {VARIABLE}: example_shpo is no package with mails; did you mean {PACKAGE}?",
    ]


def test_a_template_that_breaks_later_is_retried(brand: Path) -> None:
    """A replacement that is broken while the process runs raises `LookupError`, and its mended form is used."""
    file = brand / PACKAGE / "receipt.html"
    file.write_text("<p>{{ amount }}</p>")
    templates = build_mail_templates(settings(brand), PACKAGE)
    assert templates.render("receipt", amount="5").html == "<p>5</p>"
    for text, number in (("{{ oops", 1), ("<p>now {{ amount }}</p>", 2)):
        file.write_text(text)
        os.utime(file, (number, number))  # as a later change, whatever the clock's resolution
        if number == 1:
            with pytest.raises(LookupError):
                templates.render("receipt", amount="5")
    assert templates.render("receipt", amount="5").html == "<p>now 5</p>"

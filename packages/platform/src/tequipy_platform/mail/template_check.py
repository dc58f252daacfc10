"""The check at the start of a process that a deployment's own templates can render every mail."""

import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tequipy_platform.mail.settings import MailSettings
from tequipy_platform.mail.templates import JinjaMailTemplates, build_mail_templates
from tequipy_platform.settings import refuse


def refuse_broken_templates(settings: MailSettings, package_names: Iterable[str], *, variable: str) -> None:
    """End the process with status 78 and one line per fault if `settings.templates` breaks a mail of these packages.

    Every mail is rendered with its sample values. The lines begin with `variable`, the name under which the app reads
    the folder. A file that replaces nothing is only a warning on standard error, because a release that was rolled
    back meets the templates of a newer one.
    """
    if settings.templates is None:
        return
    packages = [build_mail_templates(settings, name) for name in package_names]
    faults = list(_faults(settings.templates, packages))
    if faults:
        refuse(f"{variable}: {fault}" for fault in faults)
    sys.stderr.writelines(f"warning: {variable}: {line}\n" for line in _unused_files(settings.templates, packages))


def _faults(folder: Path, templates: Sequence[JinjaMailTemplates]) -> Iterator[str]:
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        yield f"should name a folder that can be read: {error.strerror}"
        return
    for package in templates:
        for name, values in package.samples().items():
            try:
                mail = package.render(name, **values)
            except LookupError as error:
                yield f"{package.package_name}: {error.args[0]}"
            else:
                if not mail.subject or "\n" in mail.subject:
                    yield f"{package.package_name}: mail template {name!r}: the subject should be one line"


def _unused_files(folder: Path, templates: Sequence[JinjaMailTemplates]) -> Iterator[str]:
    """Yield a line for each file that is in a folder of no package, or that no mail of its package uses."""
    from tequipy_platform.mail.jinja import layout_files  # noqa: PLC0415 -- most deployments replace no template

    packages = {package.package_name: package for package in templates}
    for entry in sorted(folder.iterdir()):
        # Kubernetes adds links such as `..data` to a mounted ConfigMap.
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if entry.name not in packages:
            yield f"{entry.name} is no package with mails{_hint(entry.name, list(packages))}"
            continue
        known = [f"{name}.{kind}" for name in packages[entry.name].samples() for kind in ("txt", "html")]
        known += layout_files()
        for file in sorted(each.name for each in entry.iterdir() if not each.name.startswith(".")):
            if file not in known:
                yield f"{entry.name}/{file} replaces no template{_hint(file, known)}"


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""

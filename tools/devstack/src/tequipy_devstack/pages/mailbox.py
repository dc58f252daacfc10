"""The mailbox of the local stack: the mails of the mail sink as pages, without scripts."""

import re
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tequipy_devstack.pages.mails import find, newest_first
from tequipy_devstack.pages.server import Answer, Request

PAGE_SIZE: Final = 50

_LINK: Final = re.compile(r"https?://[^\s<>\"'`]+[^\s<>\"'`.,;:!?)\]}]")
_HEADERS: Final = {
    # Inherited by the frame with the HTML of a mail: no script, no form, nothing from elsewhere, no other page in it.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
}


class Mailbox:
    """Answers requests for the pages of a folder of mails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        templates = Environment(
            loader=PackageLoader("tequipy_devstack.pages", "templates"), autoescape=True, undefined=StrictUndefined
        )
        templates.filters["linked"] = linked
        self._list, self._mail = templates.get_template("mailbox.html"), templates.get_template("mail.html")

    def __call__(self, request: Request) -> Answer | None:
        """Return the list, a mail, or None."""
        if request.path == "/":
            return self._answer_list(request.query)
        if not request.path.startswith("/mails/"):
            return None
        mail = find(self._folder, request.path.removeprefix("/mails/"))
        if mail is None:
            return None
        # The base makes links of the mail open a page of their own, outside of the frame.
        return _answer(self._mail.render(mail=mail, framed=f'<base target="_blank">{mail.html}'))

    def _answer_list(self, query: str) -> Answer:
        fields = {name: values[0].strip() for name, values in parse_qs(query, max_num_fields=20).items()}
        wanted = {name: fields.get(name, "")[:200] for name in ("address", "correlation_id")}
        number = fields.get("page", "")
        page = min(int(number), 10**6) if re.fullmatch("[0-9]{1,6}", number) else 0
        mails = newest_first(self._folder, **wanted)
        shown = list(islice(mails, page * PAGE_SIZE, (page + 1) * PAGE_SIZE + 1))

        def link(to: int) -> str:
            return "/?" + urlencode({**{name: value for name, value in wanted.items() if value}, "page": to})

        older = link(page + 1) if len(shown) > PAGE_SIZE else None
        newer = link(page - 1) if page else None
        return _answer(self._list.render(mails=shown[:PAGE_SIZE], **wanted, older=older, newer=newer))


def linked(text: str) -> Markup:
    """Return a text as HTML in which its http and https URLs are links."""
    parts, end = [], 0
    for match in _LINK.finditer(text):
        parts += [escape(text[end : match.start()]), Markup('<a href="{0}" target="_blank">{0}</a>').format(match[0])]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _answer(html: str) -> Answer:
    return Answer(html.encode(errors="replace"), headers=_HEADERS)

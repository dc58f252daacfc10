"""The front end of the local stack: the static page in examples/spa, on an origin of its own."""

import json
import mimetypes
from pathlib import Path
from typing import Final

from tequipy_devstack.pages.server import Answer, Request

MAILED_PATHS: Final = frozenset(
    f"/{purpose}"
    for purpose in (
        "verify-email",
        "reset-password",
        "confirm-email",
        "undo-email",
        "end-session",
        "accept-invitation",
    )
)
"""The paths of links in mails, all of which show the page."""


class FrontEnd:
    """Answers requests for the files of a folder; `/` and the paths of links in mails are its `index.html`."""

    def __init__(self, folder: Path, *, api_port: int) -> None:
        self._folder = folder.resolve()
        self._api_port = api_port

    def __call__(self, request: Request) -> Answer | None:
        """Return a file, or None."""
        # By the name that the page was asked for: localhost and 127.0.0.1 are two sites, which share no cookie.
        api = f"http://{request.host}:{self._api_port}"
        headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
                f"connect-src 'self' {api}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
        }
        if request.path == "/config.json":
            return Answer(json.dumps({"api": f"{api}/api/v1"}).encode(), "application/json", headers=headers)
        name = "index.html" if request.path in {"/", *MAILED_PATHS} else request.path.lstrip("/")
        file = (self._folder / name).resolve()
        if not file.is_relative_to(self._folder) or not file.is_file():
            return None
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return Answer(file.read_bytes(), f"{kind}; charset=utf-8", headers=headers)

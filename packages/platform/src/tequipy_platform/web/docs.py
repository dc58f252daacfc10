"""`/docs` and `/redoc`: pages that show the OpenAPI document, from files of this process alone."""

from dataclasses import dataclass, replace
from html import escape
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, HTMLResponse, Response

from tequipy_platform._errors import NotFound

_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",  # icons in the style sheets
    "connect-src": "'self'",  # the OpenAPI document, and requests that users try out
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_POLICY_OF_REDOC: Final = {
    "style-src": "'self' 'unsafe-inline'",  # Redoc creates style elements at run time; a style cannot run code
    "worker-src": "blob:",  # Redoc's search runs in a worker that is created from its own script
}

_HTML: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
{styles}</head>
<body>
<div id="contract"></div>
{scripts}</body>
</html>
"""
"""All addresses in the page are relative, so that it works behind a path prefix."""

_START_SWAGGER: Final = """\
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#contract", deepLinking: true, validatorUrl: null, persistAuthorization: %s,
  requestInterceptor: (request) => { request.headers["X-Requested-With"] = "SwaggerUI"; return request; },
});
"""
"""Requests with a cookie and without a body need the header `X-Requested-With`."""

_START_REDOC: Final = """\
Redoc.init("openapi.json", {}, document.getElementById("contract"));
"""

_CACHE: Final = {"Cache-Control": "public, max-age=3600"}


@dataclass(frozen=True, slots=True)
class _Page:
    """One program that shows the OpenAPI document."""

    name: str
    files: dict[str, str]
    """File names, with their paths in the package of static files."""
    start: str
    """The script that starts the program; a separate file, because the policy forbids inline scripts."""
    policy: dict[str, str]
    """Directives of Content Security Policy Level 3."""

    def html(self, title: str) -> str:
        """Return the page, which refers to no other host and holds no inline script."""
        styles = "".join(
            f'<link rel="stylesheet" href="{self.name}/{file}">\n' for file in self.files if file.endswith(".css")
        )
        scripts = "".join(
            f'<script src="{self.name}/{file}"></script>\n'
            for file in (*self.files, "start.js")
            if file.endswith(".js")
        )
        return _HTML.format(title=escape(title), styles=styles, scripts=scripts)


_SWAGGER: Final = _Page(
    "docs",
    {
        "swagger-ui.css": "swagger/swagger-ui.css",
        "swagger-ui-bundle.js": "swagger/swagger-ui-bundle.js",
        "favicon.png": "fastapi/favicon.png",
    },
    _START_SWAGGER % "false",
    _POLICY,
)
_REDOC: Final = _Page(
    "redoc",
    {
        "redoc.standalone.js": "redoc/redoc.standalone.js",
        "logo-mini.svg": "redoc/logo-mini.svg",  # requested by Redoc itself, in the package's patched version
    },
    _START_REDOC,
    _POLICY | _POLICY_OF_REDOC,
)


def wire_docs(app: FastAPI, *, keep_tokens: bool = False) -> None:
    """Add `/docs` (Swagger UI) and `/redoc`, with policies that forbid other hosts and inline scripts.

    With `keep_tokens` the browser stores the tokens that developers enter at `/docs`, so that they survive a reload.
    That is for a developer's machine alone: scripts of the origin can read them.
    """
    swagger = replace(_SWAGGER, start=_START_SWAGGER % "true") if keep_tokens else _SWAGGER
    for page in (swagger, _REDOC):
        app.include_router(_router(page))


def _router(page: _Page) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    headers = {"Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in page.policy.items())}

    @router.get(f"/{page.name}")
    async def show(request: Request) -> HTMLResponse:
        title: str = request.app.title
        return HTMLResponse(page.html(title), headers=headers)

    @router.get(f"/{page.name}/{{file}}")
    async def asset(file: str) -> Response:
        if file == "start.js":
            return Response(page.start, media_type="text/javascript", headers=_CACHE)
        if file not in page.files:
            raise NotFound
        return FileResponse(_static() / page.files[file], headers=_CACHE)

    return router


def _static() -> Path:
    with as_file(files("fastapi_standalone_docs") / "static") as folder:
        return folder  # the files are on disk, because wheels are unpacked at installation

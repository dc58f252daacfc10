"""The docs pages load files of this process only, under a strict content security policy."""

import re
from collections.abc import AsyncIterator
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware

from tequipy_platform.web import CatchErrors, LimitBodies, Pipeline, SecurityHeaders, wire_docs, wire_errors


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    middleware = [Middleware(Pipeline, [SecurityHeaders(), LimitBodies(), CatchErrors()])]
    app = FastAPI(title="Ada <& Co>", docs_url=None, redoc_url=None, middleware=middleware)
    wire_errors(app)
    wire_docs(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("page", "types"),
    [
        ("/docs", ["image/png", "text/css", "text/javascript", "text/javascript"]),
        ("/redoc", ["image/png", "text/javascript", "text/javascript"]),
    ],
)
async def test_every_file_of_a_page_is_local(client: httpx.AsyncClient, page: str, types: list[str]) -> None:
    """The page names no host, and every file that it names is served with the right type."""
    answer = await client.get(page)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Ada &lt;&amp; Co&gt;</title>" in answer.text
    assert "//" not in answer.text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    files = [await client.get(urljoin(f"http://test{page}", address)) for address in addresses]
    assert [file.status_code for file in files] == [200] * len(types)
    assert [file.headers["content-type"].partition(";")[0] for file in files] == types
    assert all(file.headers["cache-control"] == "public, max-age=3600" for file in files)


async def test_files_that_redoc_loads_later_are_local(client: httpx.AsyncClient) -> None:
    """Redoc's script loads its logo from this server and not from a third party."""
    script = (await client.get("/redoc/redoc.standalone.js")).text
    assert 'window.location.pathname+"/logo-mini.svg"' in script
    assert "cdn." not in script
    assert (await client.get("/redoc/logo-mini.svg")).headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_policy_forbids_foreign_and_inline_scripts(client: httpx.AsyncClient, page: str) -> None:
    """The policy allows scripts of this origin only and no `eval`, and the page contains no inline script."""
    answer = await client.get(page)
    (policy,) = answer.headers.get_list("content-security-policy")
    directives = {name: sources for name, *sources in (part.split() for part in policy.split(";"))}
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'"]
    assert directives["connect-src"] == ["'self'"]
    assert directives["frame-ancestors"] == ["'none'"]
    assert "unsafe-eval" not in policy
    assert ":/" not in policy
    assert re.findall(r"<script(?! src=)|\bon\w+=|javascript:", answer.text) == []


@pytest.mark.parametrize("path", ["/docs/nothing.js", "/docs/redoc.standalone.js", "/docs/..%2Fstandalone_docs.py"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    """Only the files of the page are served, no others of the package that contains them."""
    assert (await client.get(path)).status_code == 404


async def test_openapi_does_not_contain_the_docs_pages(client: httpx.AsyncClient) -> None:
    """The OpenAPI document does not contain the docs pages."""
    assert (await client.get("/openapi.json")).json()["paths"] == {}


@pytest.mark.parametrize("kept", [True, False])
async def test_tokens_are_stored_only_on_request(*, kept: bool) -> None:
    """Swagger UI stores entered tokens in the browser with `keep_tokens` alone, and sends `X-Requested-With`."""
    app = FastAPI()
    wire_docs(app, keep_tokens=kept)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        script = (await client.get("/docs/start.js")).text
    assert f"persistAuthorization: {'true' if kept else 'false'}" in script
    assert 'headers["X-Requested-With"]' in script

"""Security headers and CORS."""

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.middleware import Middleware

from tequipy_platform.web import Cors, NoStore, Pipeline, SecurityHeaders, wire_no_store

OURS = "https://app.example.com"
LISTED = "SHOP_ORIGINS lists the origins that are."


def client(*origins: str, hsts: bool = True, setting: str | None = None) -> httpx.AsyncClient:
    stages = [SecurityHeaders(hsts=hsts), NoStore(), Cors(origins, setting=setting)]
    app = FastAPI(middleware=[Middleware(Pipeline, stages)])

    @app.get("/plain")
    async def plain() -> dict[str, str]:
        return {}

    @app.delete("/plain", status_code=204)
    async def delete(response: Response) -> None:
        response.headers["x-of-the-route"] = "1"

    @app.post("/secret")
    async def secret(response: Response, number: int) -> int:
        response.headers["cache-control"] = "public"
        return number

    wire_no_store(app, secret)

    @app.get("/page")
    async def page(response: Response) -> dict[str, str]:
        response.headers["content-security-policy"] = "default-src 'self'"
        return {}

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_every_response_has_security_headers() -> None:
    """The security headers are on every response, 404 included."""
    async with client() as http:
        for path in ("/plain", "/nowhere"):
            headers = (await http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["strict-transport-security"].startswith("max-age=")


async def test_hsts_can_be_left_out_and_a_route_may_have_its_own_policy() -> None:
    """HSTS can be disabled, and a route's own header value is kept."""
    async with client(hsts=False) as http:
        headers = (await http.get("/page")).headers
    assert "strict-transport-security" not in headers
    assert headers["content-security-policy"] == "default-src 'self'"


async def test_cors_answers_configured_origins_alone() -> None:
    """A configured origin is allowed with credentials, any other is not, and `*` is never sent."""
    async with client(OURS) as http:
        ours = (await http.get("/plain", headers={"origin": OURS})).headers
        theirs = (await http.get("/plain", headers={"origin": "https://evil.example"})).headers
        preflight = await http.options("/plain", headers={"origin": OURS, "access-control-request-method": "PATCH"})
    assert ours["access-control-allow-origin"] == OURS
    assert ours["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in theirs
    assert preflight.status_code == 200
    assert preflight.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("origin", "method", "headers", "detail"),
    [
        (
            "https://evil.example:8443",
            "POST",
            "content-type",
            f"The Origin header names https://evil.example:8443, which is not allowed; {LISTED}",
        ),
        (
            "https://evil.example/<script>",
            "POST",
            "content-type",
            f"The Origin header names no web page, which is not allowed; {LISTED}",
        ),
        (
            "null",
            "POST",
            "content-type",
            "The Origin header is null, which no setting allows: serve the page by HTTP, outside of a sandbox.",
        ),
        (OURS, "TRACE", "x-other", "Access-Control-Request-Method is not one of GET, POST, PUT, PATCH, DELETE."),
        (OURS, "", "", "Access-Control-Request-Method is not one of GET, POST, PUT, PATCH, DELETE."),
        (
            OURS,
            "POST",
            "content-type, x-other",
            (
                "Access-Control-Request-Headers names a header that is not allowed; beside those that need no "
                "permission (Fetch standard, section 2.2.2) Authorization, Content-Type, Idempotency-Key, If-Match, "
                "If-None-Match, If-Range, Range, X-Requested-With, traceparent, X-Correlation-ID are."
            ),
        ),
    ],
)
async def test_a_refused_preflight_says_which_header_was_refused(
    origin: str, method: str, headers: str, detail: str
) -> None:
    """A wrong origin, method or header gives 403 as a problem document that names it, and that caches separate."""
    async with client(OURS, setting="SHOP_ORIGINS") as http:
        answer = await http.options(
            "/plain",
            headers={
                "origin": origin,
                "access-control-request-method": method,
                "access-control-request-headers": headers,
            },
        )
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (403, "forbidden", detail)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Origin" in answer.headers["vary"]
    assert answer.headers.get("access-control-allow-origin") == (OURS if origin == OURS else None)


async def test_a_refusal_without_a_known_setting_names_none() -> None:
    """A host that does not tell the name of its setting gets the sentence without it."""
    async with client(OURS) as http:
        headers = {"origin": "https://evil.example", "access-control-request-method": "GET"}
        answer = await http.options("/plain", headers=headers)
    assert answer.json()["detail"] == "The Origin header names https://evil.example, which is not allowed."


async def test_a_response_without_content_has_no_type() -> None:
    """A 204 has no Content-Type; a type that the route sets is kept."""
    async with client() as http:
        answer = await http.delete("/plain")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    assert answer.headers["x-of-the-route"] == "1"


async def test_without_origins_there_is_no_cors() -> None:
    """Without configured origins there are no CORS headers, and a preflight is a method like any other."""
    async with client() as http:
        assert "access-control-allow-origin" not in (await http.get("/plain", headers={"origin": OURS})).headers
        preflight = await http.options("/plain", headers={"origin": OURS, "access-control-request-method": "GET"})
    assert preflight.status_code == 405


async def test_no_response_of_a_wired_endpoint_may_be_stored() -> None:
    """A wired endpoint has `no-store` on successes and errors, whatever the route says; others have none."""
    async with client(OURS) as http:
        wired = [
            await http.post("/secret?number=1"),
            await http.post("/secret?number=x"),
            await http.get("/secret"),
        ]
        other = await http.get("/plain")
    assert [answer.status_code for answer in wired] == [200, 422, 405]
    assert {answer.headers["cache-control"] for answer in wired} == {"no-store"}
    assert "cache-control" not in other.headers


def test_no_store_needs_its_middleware() -> None:
    """Declaring an endpoint without the middleware, which would have no effect, is refused."""
    with pytest.raises(RuntimeError, match="NoStore"):
        wire_no_store(FastAPI(), test_no_store_needs_its_middleware)

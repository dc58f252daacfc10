"""Security headers and CORS."""

import httpx
from fastapi import FastAPI, Response

from tequipy_platform.api import wire_headers
from tequipy_platform.wiring import HeaderSettings

OURS = "https://app.example.com"


def client(settings: HeaderSettings, *, hsts: bool = True) -> httpx.AsyncClient:
    app = FastAPI()
    wire_headers(app, settings, hsts=hsts)

    @app.get("/plain")
    async def plain() -> dict[str, str]:
        return {}

    @app.get("/page")
    async def page(response: Response) -> dict[str, str]:
        response.headers["content-security-policy"] = "default-src 'self'"
        return {}

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_every_answer_is_guarded() -> None:
    """The security headers are on every answer, 404 included."""
    async with client(HeaderSettings()) as http:
        for path in ("/plain", "/nowhere"):
            headers = (await http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["strict-transport-security"].startswith("max-age=")


async def test_hsts_can_be_left_out_and_a_route_may_have_its_own_policy() -> None:
    """Without HSTS the header is absent, and what a route sets stays."""
    async with client(HeaderSettings(), hsts=False) as http:
        headers = (await http.get("/page")).headers
    assert "strict-transport-security" not in headers
    assert headers["content-security-policy"] == "default-src 'self'"


async def test_cors_answers_configured_origins_alone() -> None:
    """A configured origin gets itself back, with credentials; another one gets nothing; never `*`."""
    async with client(HeaderSettings(cors_origins=(OURS,))) as http:
        ours = (await http.get("/plain", headers={"origin": OURS})).headers
        theirs = (await http.get("/plain", headers={"origin": "https://evil.example"})).headers
        preflight = await http.options("/plain", headers={"origin": OURS, "access-control-request-method": "PATCH"})
    assert ours["access-control-allow-origin"] == OURS
    assert ours["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in theirs
    assert preflight.status_code == 200
    assert preflight.headers["x-content-type-options"] == "nosniff"


async def test_without_origins_there_is_no_cors() -> None:
    """With nothing configured no origin is answered."""
    async with client(HeaderSettings()) as http:
        assert "access-control-allow-origin" not in (await http.get("/plain", headers={"origin": OURS})).headers

"""One list of origins decides which pages may read responses, and which may use the refresh cookie."""

import httpx
import pytest

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings

PUBLIC, LISTED = "https://www.example.com", "https://app.example.com"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (PUBLIC, True),
        (LISTED, True),
        ("https://evil.example", False),
        (f"{LISTED}:8443", False),
        ("http://app.example.com", False),
    ],
)
async def test_one_list_serves_cors_and_csrf(settings: ApiSettings, origin: str, allowed: bool) -> None:
    """CORS and the check of the refresh cookie accept the same origins; refusals of both name the setting."""
    app = create_app(settings.model_copy(update={"public_url": f"{PUBLIC}/base", "allowed_origins": (LISTED,)}))
    url = "/api/v1/auth/refresh"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://api.example.com") as client:
        preflight = await client.options(url, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        # A malformed token in the cookie: a request that may use the cookie gets 401.
        client.cookies["__Host-refresh"] = "rt1.none"
        refresh = await client.post(url, headers={"Origin": origin}, json={})
    assert (preflight.status_code, refresh.status_code) == ((200, 401) if allowed else (403, 403))
    for answer in (preflight, refresh):
        assert (answer.headers.get("Access-Control-Allow-Origin") == origin) == allowed
        assert ("TEQUIPY_ALLOWED_ORIGINS" in answer.text) != allowed

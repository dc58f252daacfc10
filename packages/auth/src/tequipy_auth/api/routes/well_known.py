"""The route of the public keys, at its well-known path (RFC 8615)."""

from fastapi import APIRouter, Response

from tequipy_auth.api.dependencies import CurrentAuth
from tequipy_auth.api.schemas import JsonWebKeySet
from tequipy_platform import Unavailable
from tequipy_platform.web import problem_responses

router = APIRouter(tags=["accounts and sessions"])


@router.get("/.well-known/jwks.json", responses=problem_responses(Unavailable))
async def get_jwks(response: Response, auth: CurrentAuth) -> JsonWebKeySet:
    """Return the keys that verify access tokens (RFC 7517, section 5): public members only."""
    response.headers["Cache-Control"] = f"public, max-age={auth.policy.jwks_max_age.total_seconds():.0f}"
    return JsonWebKeySet.model_validate(await auth.access_tokens.jwks())

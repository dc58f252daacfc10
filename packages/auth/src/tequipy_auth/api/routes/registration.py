"""Becoming a user: register, and verify the address."""

from fastapi import APIRouter, status

from tequipy_auth.api.dependencies import CurrentAuth, CurrentClient
from tequipy_auth.api.schemas import Accepted, RegisterBody, VerifyEmailBody
from tequipy_auth.domain.exceptions import InvalidOneTimeToken, WeakPassword
from tequipy_platform import Unavailable
from tequipy_platform.api import BODY_PROBLEMS, problem_responses

router = APIRouter()


@router.post(
    "/register",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*BODY_PROBLEMS, WeakPassword, Unavailable),
)
async def register(auth: CurrentAuth, client: CurrentClient, body: RegisterBody) -> Accepted:
    """Ask for an account; the answer is the same whether the address is known or not, the rest comes by mail."""
    await auth.registration.register(
        email=body.email, password=body.password.get_secret_value(), name=body.name, client=client
    )
    return Accepted()


@router.post(
    "/verify-email",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, Unavailable),
)
async def verify_email(auth: CurrentAuth, client: CurrentClient, body: VerifyEmailBody) -> None:
    """Turn a registration into an account by the token of the mailed link."""
    await auth.registration.verify_email(body.token.get_secret_value(), client=client)

"""Routes for registration and verification of addresses."""

from fastapi import APIRouter, Response, status
from fastapi.responses import JSONResponse

from tequipy_auth.api.dependencies import CurrentAuth, CurrentClient
from tequipy_auth.api.schemas import Accepted, AcceptInvitationBody, AddressBody, Me, RegisterBody, VerifyEmailBody
from tequipy_auth.domain.exceptions import (
    EmailTaken,
    InvalidCredentials,
    InvalidOneTimeToken,
    PasswordRequired,
    RegistrationClosed,
    WeakPassword,
)
from tequipy_auth.domain.services.accounts import profile_of
from tequipy_platform import Unavailable
from tequipy_platform.web import BODY_PROBLEMS, problem_responses

router = APIRouter()


@router.post(
    "/register",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=Accepted,
    responses={
        status.HTTP_201_CREATED: {"model": Me, "description": "Open registration: the account exists, unverified."},
        **problem_responses(*BODY_PROBLEMS, RegistrationClosed, WeakPassword, EmailTaken, Unavailable),
    },
)
async def register(auth: CurrentAuth, client: CurrentClient, body: RegisterBody) -> Accepted | Response:
    """Register an account; the response does not show whether the address has an account, the result is sent by mail.

    With open registration the account is created at once, and an address that has one is refused. With registration by
    invitation alone, every request is refused.
    """
    user = await auth.registration.register(
        email=body.email, password=body.password.get_secret_value(), name=body.name, client=client
    )
    if user is None:
        return Accepted()
    me = Me.of(profile_of(user), await auth.roles.permissions_of(user.roles))
    return JSONResponse(me.model_dump(mode="json"), status_code=status.HTTP_201_CREATED)


@router.post(
    "/verify-email",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, PasswordRequired, InvalidCredentials, Unavailable),
)
async def verify_email(auth: CurrentAuth, client: CurrentClient, body: VerifyEmailBody) -> None:
    """Verify an address with the token of the mailed link, which turns the registration into an account.

    While the address has several pending registrations, the password of the link's registration is required; a link
    allows five attempts.
    """
    password = body.password.get_secret_value() if body.password else None
    await auth.registration.verify_email(body.token.get_secret_value(), password=password, client=client)


@router.post(
    "/verify-email/resend",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problem_responses(*BODY_PROBLEMS, Unavailable),
)
async def resend_verification(auth: CurrentAuth, body: AddressBody) -> Accepted:
    """Request another verification mail; the response is the same for every address."""
    await auth.registration.resend_verification(email=body.email)
    return Accepted()


@router.post(
    "/accept-invitation",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(*BODY_PROBLEMS, InvalidOneTimeToken, WeakPassword, Unavailable),
)
async def accept_invitation(auth: CurrentAuth, client: CurrentClient, body: AcceptInvitationBody) -> None:
    """Create the account of an invitation with the token of the mailed link; the caller is not logged in.

    The link is invalid if its address has an account, or if the inviter could no longer give its roles.
    """
    await auth.invitations.accept(
        body.token.get_secret_value(), password=body.password.get_secret_value(), name=body.name, client=client
    )

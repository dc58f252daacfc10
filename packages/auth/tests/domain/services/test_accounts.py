"""Profiles of accounts."""

import pytest

from tequipy_auth import Auth, InvalidAccessToken, TokenPair

from .accounts import EMAIL

pytestmark = pytest.mark.usefixtures("account")


async def test_a_profile_contains_address_and_roles(auth: Auth, pair: TokenPair) -> None:
    """The profile contains the address and the roles."""
    principal = await auth.access_tokens.verify(pair.access.value)
    profile = await auth.accounts.profile(principal.user_id)
    assert (profile.id, profile.email, profile.roles) == (principal.user_id, EMAIL, ("admin",))


async def test_a_token_of_a_deleted_account_is_invalid(auth: Auth, pair: TokenPair) -> None:
    """A token with a valid signature is refused when its account does not exist."""
    with pytest.raises(InvalidAccessToken):
        await auth.accounts.profile(pair.refresh.id)

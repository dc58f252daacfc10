"""The password policy."""

import pytest

from tequipy_auth import AuthPolicy, EmailAddress, WeakPassword
from tequipy_auth.domain.passwords import PasswordRules
from tequipy_auth.testing import FakeBreachedPasswords, FakeCommonPasswords

EMAIL = EmailAddress("Ada.Lovelace@Example.com", "ada.lovelace@example.com")


@pytest.fixture
def rules() -> PasswordRules:
    return PasswordRules(AuthPolicy(), FakeCommonPasswords("password1234", "monkey", "ada.lovelace"))


@pytest.mark.parametrize(
    ("password", "reasons"),
    [
        ("", ("too_short",)),
        ("p" * 11, ("too_short",)),
        ("p" * 129, ("too_long",)),
        ("password1234", ("common",)),
        ("PassWord1234", ("common",)),
        ("ｐａｓｓｗｏｒｄ１２３４", ("common",)),  # noqa: RUF001 -- full-width letters, the same in NFKC
        ("Monkey", ("too_short", "common")),
        ("ada.lovelace@example.com", ("matches_email",)),
        ("ADA.LOVELACE", ("common", "matches_email")),
    ],
)
async def test_every_reason_is_reported(rules: PasswordRules, password: str, reasons: tuple[str, ...]) -> None:
    """Length, common passwords and the address are checked, independent of case and Unicode form."""
    with pytest.raises(WeakPassword) as refusal:
        await rules.accept(password, EMAIL)
    assert refusal.value.reasons == reasons


@pytest.mark.parametrize("password", ["p" * 12, "p" * 128, "PPPPPPPPPPPP", "            ", "correct horse"])
async def test_any_composition_is_accepted(rules: PasswordRules, password: str) -> None:
    """12 to 128 characters of any kind are accepted and kept unchanged."""
    assert await rules.accept(password, EMAIL) == password


@pytest.mark.parametrize("password", ["ada@bücher.example", "ADA@BÜCHER.example", "ada@xn--bcher-kva.example"])
async def test_an_address_is_recognised_in_both_its_spellings(rules: PasswordRules, password: str) -> None:
    """The password may not be the address, neither with its domain in Unicode nor in ASCII."""
    with pytest.raises(WeakPassword) as refusal:
        await rules.accept(password, EmailAddress("Ada@Bücher.example", "ada@xn--bcher-kva.example"))
    assert refusal.value.reasons == ("matches_email",)


async def test_length_is_counted_after_normalisation(rules: PasswordRules) -> None:
    """A ligature counts as two characters, a letter with its accent as one."""
    assert await rules.accept("ﬁ" * 6, EMAIL) == "fi" * 6
    with pytest.raises(WeakPassword):
        await rules.accept("e\u0301" * 11, EMAIL)


async def test_a_breached_password_is_refused() -> None:
    """A password is looked up among the breached ones in its normalised form, in which it would be stored."""
    breached = FakeBreachedPasswords("affine horse battery")
    rules = PasswordRules(AuthPolicy(), FakeCommonPasswords(), breached)
    with pytest.raises(WeakPassword) as refusal:
        await rules.accept("aﬃne horse battery", EMAIL)
    assert refusal.value.reasons == ("breached",)
    assert await rules.accept("another horse battery", EMAIL) == "another horse battery"
    assert breached.asked == ["affine horse battery", "another horse battery"]


@pytest.mark.parametrize("password", ["too short", "p" * 129, "password1234", "Ada.Lovelace@example.com"])
async def test_a_password_that_another_rule_refuses_is_not_looked_up(password: str) -> None:
    """The service that knows breached passwords learns nothing about a password that is refused anyway."""
    breached = FakeBreachedPasswords(password)
    rules = PasswordRules(AuthPolicy(), FakeCommonPasswords("password1234"), breached)
    with pytest.raises(WeakPassword) as refusal:
        await rules.accept(password, EMAIL)
    assert "breached" not in refusal.value.reasons
    assert breached.asked == []

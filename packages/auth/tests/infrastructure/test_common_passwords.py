"""The bundled list of common passwords."""

from importlib.resources import files

from tequipy_auth import AuthPolicy
from tequipy_auth.domain.passwords import fold
from tequipy_auth.infrastructure.common_passwords import BundledCommonPasswords


async def test_common_passwords_are_known_in_whatever_case() -> None:
    """What everybody types first is there, a passphrase is not."""
    async with BundledCommonPasswords() as common:
        for password in ("qwertyqwerty", "QwertyQwerty", "123456123456", "1qaz2wsx3edc", "iloveyou1234"):
            assert password in common, password
        for password in ("correct horse battery staple", "p" * 100, ""):
            assert password not in common


def test_it_holds_what_can_matter_and_names_its_source() -> None:
    """Each entry is as long as a password must be, in the form that is compared; the number told is the true one."""
    entries = BundledCommonPasswords()._passwords
    policy = AuthPolicy(public_url="")
    assert all(policy.password_min_length <= len(entry) <= policy.password_max_length for entry in entries)
    assert all(fold(entry) == entry for entry in entries)
    text = files("tequipy_auth.infrastructure").joinpath("data", "common_passwords.md").read_text("utf-8")
    assert f"{len(entries):,} passwords" in text
    assert "SecLists" in text

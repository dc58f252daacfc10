"""The bundled list of common passwords."""

from importlib.resources import files

from tequipy_auth import AuthPolicy
from tequipy_auth.domain.passwords import fold
from tequipy_auth.infrastructure.common_passwords import BundledCommonPasswords, _lines


async def test_common_passwords_are_found_in_any_case() -> None:
    """Frequent passwords are in the list, a passphrase is not."""
    async with BundledCommonPasswords() as common:
        for password in ("qwertyqwerty", "QwertyQwerty", "123456123456", "1qaz2wsx3edc", "iloveyou1234"):
            assert password in common, password
        for password in ("correct horse battery staple", "p" * 100, "", "qwertyqwert", "\udcff" * 12):
            assert password not in common


async def test_entries_are_found_and_parts_of_them_are_not() -> None:
    """Every entry is in the list; neither a part of an entry nor two entries that follow each other are."""
    words = _lines().decode().split()
    async with BundledCommonPasswords() as common:
        assert all(word in common for word in words[::500])
        assert not [word for word in words[::500] if word[:-1] in common and word[:-1] not in words]
        assert "\n".join(words[:2]) not in common


def test_the_list_matches_its_description() -> None:
    """Each entry has the minimum length and the compared form; the documented number of entries is correct."""
    entries = set(_lines().decode().split("\n")) - {""}
    policy = AuthPolicy()
    assert all(policy.password_min_length <= len(entry) <= policy.password_max_length for entry in entries)
    assert all(fold(entry) == entry for entry in entries)
    text = files("tequipy_auth.infrastructure").joinpath("data", "common_passwords.md").read_text("utf-8")
    assert f"{len(entries):,} passwords" in text
    assert "SecLists" in text

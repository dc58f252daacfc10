"""The settings of the HTTP client."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tequipy_platform.http import HttpProfile, HttpSettings


def test_one_timeout_of_a_profile_can_be_set_alone() -> None:
    """The other timeouts of the profile, and the other profiles, keep their defaults."""
    settings = HttpSettings.model_validate({"llm": {"total": "300"}})
    assert settings.llm == HttpProfile(connect=10, read=110, total=300)
    assert settings.default == HttpSettings().default == HttpProfile(connect=5, read=25, total=30)


@pytest.mark.parametrize(
    ("wrong", "location"),
    [
        ({"default": {"total": 3}}, ("default",)),  # below connect and read
        ({"default": {"total": "inf"}}, ("default", "total")),
        ({"default": {"total": "nan"}}, ("default", "total")),
        ({"health": {"connect": 0}}, ("health", "connect")),
        ({"webhooks": {"unknown": "hunter2"}}, ("webhooks", "unknown")),
        ({"webhooks": "hunter2"}, ("webhooks",)),
        ({"attempts": 0}, ("attempts",)),
        ({"max_connections": "hunter2"}, ("max_connections",)),
        ({"ca_file": "/nowhere/hunter2"}, ("ca_file",)),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_its_name(wrong: dict[str, Any], location: tuple[str, ...]) -> None:
    """Each wrong value is one fault with the path of the setting, and is not shown."""
    with pytest.raises(ValidationError) as refusal:
        HttpSettings.model_validate(wrong)
    assert [fault["loc"] for fault in refusal.value.errors()] == [location]
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "content", ["", "hunter2", "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"], ids=ascii
)
def test_a_file_without_certificates_is_refused(tmp_path: Path, content: str) -> None:
    """The trusted authorities are read with the settings, so that a wrong file is no error of the first call."""
    path = tmp_path / "authorities.pem"
    path.write_text(content)
    with pytest.raises(ValidationError, match="certificates in PEM") as refusal:
        HttpSettings(ca_file=path)
    assert "hunter2" not in str(refusal.value)

"""compose.yaml as Docker Compose reads it: with variables replaced, and the settings of production for it."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from .promql import ROOT

FILE: Final = ROOT / "compose.yaml"
TEXT: Final = FILE.read_text(encoding="utf-8")
_VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?:(?P<kind>:-|:\?)(?P<rest>[^}]*))?\}")

PRODUCTION: Final[Mapping[str, str]] = {
    "TEQUIPY_ENVIRONMENT": "production",
    "TEQUIPY_PUBLIC_URL": "https://app.example.com",
    "POSTGRES_PASSWORD": secrets.token_hex(32),
    "REDIS_PASSWORD": secrets.token_hex(32),
    "TEQUIPY_AUTH__PEPPERS": f'{{"1": "{secrets.token_urlsafe(32)}"}}',
    "TEQUIPY_AUTH__REFRESH_KEYS": f'{{"1": "{secrets.token_urlsafe(32)}"}}',
    "TEQUIPY_AUTH__KEY_ENCRYPTION_KEY": secrets.token_urlsafe(32),
    "TEQUIPY_AUTH__PSEUDONYM_KEY": secrets.token_urlsafe(32),
    "TEQUIPY_MAIL__SMTP_URL": "smtp+starttls://user:password@mail.example.com:587",
}
"""A `.env` with what production requires, and nothing else."""


class MissingVariableError(Exception):
    """A variable that compose.yaml requires is not set."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, as Docker Compose does; empty counts as not set."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match["name"], "")
        if not found and match["kind"] == ":?":
            raise MissingVariableError(match["name"])
        return found or (match["rest"] if match["kind"] == ":-" else "")

    return _VARIABLE.sub(value, text)


@dataclass(frozen=True)
class Service:
    """A service: its definition, after interpolation."""

    name: str
    definition: Mapping[str, Any]

    @property
    def program(self) -> str | None:
        """The entry point of our image that it runs, or None for a server of others."""
        image = str(self.definition["image"]).partition(":")[0]
        return image if image in {"tequipy-api", "tequipy-worker"} else None

    @property
    def command(self) -> list[str]:
        """The arguments of the image's entry point."""
        return [str(word) for word in self.definition.get("command", [])]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that compose.yaml sets; those of `.env` are not among them."""
        return {name: str(value) for name, value in self.definition.get("environment", {}).items()}

    @property
    def health_check(self) -> list[str]:
        """The command of the health check, empty if there is none."""
        kind, *words = self.definition.get("healthcheck", {}).get("test", ["NONE"])
        assert kind in {"CMD", "NONE"}
        return [str(word) for word in words]

    @property
    def needs(self) -> dict[str, str]:
        """The services that it waits for, and the condition of each."""
        return {name: each["condition"] for name, each in self.definition.get("depends_on", {}).items()}

    @property
    def mounts(self) -> dict[str, str]:
        """The volumes and paths that it mounts, by their paths in the container."""
        return {text.split(":")[1]: text.split(":")[0] for text in self.definition.get("volumes", [])}


def document(variables: Mapping[str, str] = PRODUCTION) -> dict[str, Any]:
    """Return compose.yaml after interpolation."""
    loaded: dict[str, Any] = _interpolated(yaml.safe_load(TEXT), variables)
    return loaded


def services(variables: Mapping[str, str] = PRODUCTION) -> dict[str, Service]:
    """Return the services by name."""
    return {name: Service(name, each) for name, each in document(variables)["services"].items()}


def _interpolated(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(each, variables) for key, each in node.items()}
    if isinstance(node, list):
        return [_interpolated(each, variables) for each in node]
    return interpolate(node, variables) if isinstance(node, str) else node

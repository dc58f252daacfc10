"""The shipped API with two routes that handle secrets carelessly; tests run it as a process."""

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from tequipy_api import cli, server
from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings

SECRET = os.environ["PLANTED_SECRET"]


@dataclass
class Account:
    """A dataclass with a secret that is logged as a whole."""

    name: str = "ada"
    password_hash: str = SECRET
    friends: list[object] = field(default_factory=list)


class Shy:
    """An object whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError(SECRET)


def fail(kind: int) -> None:
    """Raise an error whose message or local variables contain the secret."""
    local = SecretStr(SECRET).get_secret_value()
    messages = [
        f"no login with password={local}",
        f"cannot connect to postgresql+asyncpg://app:{local}@db/app",
        f"bad token eyJhbGciOiJFUzI1NiJ9.{local}.c2ln",
        f"rejected {{'email': 'a@example.com', 'password': '{local}'}}",
        f'sent {{"refresh_token": "{local}"}}',
        f"Authorization: Bearer {local}",
        "the secret is in the locals",
    ]
    raise RuntimeError(messages[kind % len(messages)])


def log(kind: int) -> None:
    """Log the secret in one of several ways."""
    endless = Account()
    endless.friends.append(endless)
    logger, own = logging.getLogger("careless"), structlog.get_logger(logger_name="careless")
    ways: list[Callable[[], object]] = [
        lambda: logger.info("logged in with %s", {"password": SECRET}, extra={"password": SECRET}),
        lambda: own.info("logged in", body={"nested": [{"new_password": SECRET}]}, secret=SecretStr(SECRET)),
        lambda: own.info(
            "endless", account=endless, shy=Shy(), number=10**50, lone="\ud800", not_a_number=float("nan")
        ),
        lambda: logger.info('forged\n{"level": "INFO"}\x1b[31m\r\n', extra={"bytes": b"\xff", "set": {1}}),
        lambda: warnings.warn(f"password={SECRET}", stacklevel=1),
        lambda: logging.getLogger("sqlalchemy.engine").error("redis://:%s@cache/0", SECRET),
        lambda: logging.getLogger("uvicorn.error").warning("Bearer %s", SECRET),
        lambda: own.info("x" * 200_000 + f" password={SECRET}", more=["y" * 1000] * 1000),
    ]
    ways[kind % len(ways)]()


def careless(settings: ApiSettings) -> FastAPI:
    """Return the shipped app with the two routes."""
    app = create_app(settings)
    app.add_api_route("/careless/fail/{kind}", fail)
    app.add_api_route("/careless/log/{kind}", log)
    return app


if __name__ == "__main__":
    warnings.simplefilter("always")
    vars(server)["create_app"] = careless  # the app that `serve` serves
    cli.main()

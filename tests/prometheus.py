"""A real Prometheus, from Debian's package, with the rules of deploy/."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tequipy_devstack.ports import free_port
from tequipy_devstack.proving import Program, eventually, fetch

from .promql import RULE_FILES

PROMETHEUS = shutil.which("prometheus")


class Prometheus(Program):
    """Scrapes the given ports each second, and evaluates the rules of deploy/; entering it waits until it serves.

    With `at_once` an alert is raised as soon as its expression is true, without the time that its rule waits (`for`).
    With `token` it sends this one.
    """

    def __init__(
        self, folder: Path, targets: Mapping[str, int], *, at_once: bool = False, token: str | None = None
    ) -> None:
        self._url = f"http://127.0.0.1:{free_port()}"
        for path in RULE_FILES:
            text = path.read_text()
            (folder / path.name).write_text(re.sub(r"^ +for: .*\n", "", text, flags=re.MULTILINE) if at_once else text)
        credentials = {} if token is None else {"authorization": {"credentials": token}}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / path.name) for path in RULE_FILES],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **credentials}
                for name, port in targets.items()
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command: list[str | Path] = [
            PROMETHEUS or "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={self._url.removeprefix('http://')}",
        ]
        super().__init__(command, {}, folder / "prometheus.log")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query; raises `AssertionError` if Prometheus refuses it or warns."""
        answer = httpx.post(f"{self._url}/api/v1/query", data={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        assert not answer.get("warnings"), (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their states."""
        groups = fetch(f"{self._url}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def raised(self) -> set[str]:
        """Return the names of the alerts that are raised now."""
        return {rule["name"] for rule in self.rules() if rule.get("state") == "firing"}

    def _is_ready(self) -> bool:
        try:
            return fetch(f"{self._url}/-/ready").is_success
        except httpx.TransportError:
            return False

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            eventually("Prometheus serves", self._is_ready)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

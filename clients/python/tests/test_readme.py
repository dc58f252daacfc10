"""The example of the README runs."""

import re
from pathlib import Path

import httpx
import pytest

from .api import Api

README = Path(__file__).parents[1] / "README.md"


def test_the_example_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The example prints what its comment says."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda: Api().transport)
    exec(compile(example, README, "exec"), {"__name__": "example"})  # noqa: S102 -- our own example
    assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*# → (.*)$", example, re.MULTILINE)

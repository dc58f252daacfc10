"""Compiled routes answer as FastAPI does, byte for byte: generated routes and requests, several versions of FastAPI."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from .equality import Comparison

PACKAGES = Path(__file__).parents[4]


def test_compiled_routes_answer_as_fastapi_does_in_known_cases() -> None:
    """Routes and requests that were written by hand, one for each rule, give the same, compiled or not."""
    comparison = Comparison()
    comparison.run_known()
    print(comparison)
    assert comparison.counts["served"] > 50


def test_compiled_routes_answer_as_fastapi_does() -> None:
    """Generated routes give the same messages, errors and calls of dependencies, compiled or not (the short form)."""
    comparison = Comparison()
    comparison.run(80)
    print(comparison)
    counts = comparison.counts
    assert counts["differences"] == 0
    assert counts["served"] > counts["requests"] / 10, str(comparison)  # others are not found, or are not simple


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_compiled_routes_answer_as_fastapi_does_in_a_long_search() -> None:
    """Generated routes give the same messages, errors and calls of dependencies, compiled or not (the long form)."""
    comparison = Comparison()
    try:
        comparison.run(3000, derandomize=False)
    finally:
        print(comparison)


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_compiled_routes_answer_as_each_allowed_fastapi_does(resolution: str, tmp_path: Path) -> None:
    """The comparison passes in environments with the lowest and the newest FastAPI that the package allows."""
    project = tomllib.loads((PACKAGES / "platform/pyproject.toml").read_text("utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["api"]]
    frameworks = [each for each in declared if re.match(r"(fastapi|starlette|pydantic)>", each)]
    assert len(frameworks) == 3
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed: run the tests by `make test`"
    python, environment = str(tmp_path / "bin/python"), {**os.environ, "UV_COMPILE_BYTECODE": "0"}
    packages = [f"{PACKAGES / name}[api]" for name in ("observability", "platform")]
    install = [uv, "pip", "install", "--resolution", resolution, "--python", python]

    def run(*command: str) -> str:
        result = subprocess.run(
            command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    run(uv, "venv", "--quiet", "--clear", str(tmp_path))
    run(*install, *packages, *frameworks, "hypothesis>=6.170")
    counts = run(python, "-W", "ignore", "-m", "compiled.equality", "150")
    print(resolution, counts)
    assert " 0 differences" in counts
    # A newer FastAPI than the tested ones serves all routes itself, which is no difference either.
    assert " 0 served" not in counts or (resolution == "highest" and " 0 compiled" in counts)

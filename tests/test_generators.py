"""Generators of clients that others use understand the whole HTTP contract."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CONTRACT = Path(__file__).parents[1] / "apps/api/openapi.json"

pytestmark = [pytest.mark.prove, pytest.mark.quick]


def generate(folder: Path, *command: str) -> str:
    """Run a generator in a folder, and return what it prints."""
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def python_tool(requirement: str) -> list[str]:
    """Return the beginning of a command that runs a tool in an environment of its own."""
    return [os.environ.get("UV", "uv"), "run", "--no-project", "--quiet", "--with", requirement]


def node_tool(folder: Path) -> list[str]:
    """Return the beginning of a command with openapi-typescript and tsc: those of our own client, if installed."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("node is missing")
    client = CONTRACT.parents[2] / "clients/typescript"
    if (client / "node_modules/.bin/openapi-typescript").exists():
        return [npm, "exec", "--offline", f"--prefix={client}", "--"]
    (folder / "package.json").write_text('{"private": true}')
    return [npm, "exec", "--yes", "--package=openapi-typescript@7.13.0", "--package=typescript@5.9.3", "--"]


def numbered(names: list[str]) -> list[str]:
    """Return the names that end with a number, which a generator adds to names that exist already."""
    return [name for name in names if re.search(r"\d$", name)]


def test_openapi_python_client_drops_no_response(tmp_path: Path) -> None:
    """openapi-python-client generates without a warning, and a module for each problem, without numbered names."""
    command = [
        "openapi-python-client",
        "generate",
        "--path",
        str(CONTRACT),
        "--output-path",
        "client",
        "--meta",
        "none",
    ]
    tool = [*python_tool("openapi-python-client==0.29.1"), "--with", "ruff"]
    printed = generate(tmp_path, *tool, *command)
    dropped = re.findall(r"will be omitted|WARNING|ERROR", printed)
    modules = [path.stem for path in (tmp_path / "client/models").glob("*.py")]
    print(f"openapi-python-client: dropped {len(dropped)}, numbered {len(numbered(modules))} of {len(modules)}")
    assert (dropped, numbered(modules)) == ([], [])
    assert {"login_locked_problem", "rate_limited_problem", "validation_problem", "user_page"} <= set(modules)
    login = (tmp_path / "client/api/accounts_and_sessions/login.py").read_text(encoding="utf-8")
    statuses = json.loads(CONTRACT.read_text(encoding="utf-8"))["paths"]["/api/v1/auth/login"]["post"]["responses"]
    assert set(re.findall(r"status_code == (\d+)", login)) == statuses.keys()


def test_datamodel_code_generator_numbers_no_name(tmp_path: Path) -> None:
    """datamodel-codegen makes a class for each schema of components, parameters and bodies, without numbered names."""
    command = ["datamodel-codegen", "--input", str(CONTRACT), "--input-file-type", "openapi", "--output", "models.py"]
    options = ["--openapi-scopes", "schemas", "paths", "--output-model-type", "pydantic_v2.BaseModel"]
    tool = python_tool("datamodel-code-generator==0.89.0")
    generate(tmp_path, *tool, *command, *options, "--formatters", "builtin")
    names = re.findall(
        r"^(?:class )?(\w+)(?:\(| = )", (tmp_path / "models.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    print(f"datamodel-codegen: numbered {len(numbered(names))} of {len(names)}")
    assert numbered(names) == []
    schemas = json.loads(CONTRACT.read_text(encoding="utf-8"))["components"]["schemas"]
    assert schemas.keys() - {"JsonValue"} <= set(names)


def test_openapi_typescript_has_every_problem(tmp_path: Path) -> None:
    """openapi-typescript generates types whose problems are told apart by a constant `code`."""
    tool = node_tool(tmp_path)
    printed = generate(tmp_path, *tool, "openapi-typescript", str(CONTRACT), "--output", str(tmp_path / "contract.ts"))
    types = (tmp_path / "contract.ts").read_text(encoding="utf-8")
    codes = re.findall(r"^ {12}code: \"(\w+)\";$", types, re.MULTILINE)
    schemas = json.loads(CONTRACT.read_text(encoding="utf-8"))["components"]["schemas"]
    documented = schemas["Problem"]["discriminator"]["mapping"].keys()
    print(f"openapi-typescript: {len(codes)} problems of {len(documented)}")
    assert "warn" not in printed.lower()
    assert sorted(codes) == sorted(documented)
    assert numbered(re.findall(r"^ {8}(\w+):", types, re.MULTILINE)) == []
    (tmp_path / "use.ts").write_text(
        'import type { components } from "./contract";\n'
        'type Refusal = components["schemas"]["LoginLockedOrRateLimitedProblem"];\n'
        "export function text(problem: Refusal): string {\n"
        "  switch (problem.code) {\n"
        '    case "login_locked": return "locked";\n'
        '    case "rate_limited": return problem.detail;\n'
        "    default: { const none: never = problem; return none; }\n"
        "  }\n"
        "}\n"
    )
    generate(tmp_path, *tool, "tsc", "--noEmit", "--strict", "--skipLibCheck", str(tmp_path / "use.ts"))

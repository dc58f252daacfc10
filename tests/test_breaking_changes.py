"""The comparison of the HTTP contract with that of the last release, `.ci/breaking-changes`."""

import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / ".ci/breaking-changes"
loader = SourceFileLoader("breaking_changes", str(PROGRAM))
spec = spec_from_loader(loader.name, loader)
assert spec is not None
program: Any = module_from_spec(spec)
loader.exec_module(program)

TEXT = {"type": "string"}
NULL = {"type": "null"}
BODY = {"type": "object", "properties": {"name": TEXT}, "required": ["name"], "additionalProperties": False}
LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 200}}

NULLABLE = LIMIT | {"schema": {"anyOf": [LIMIT["schema"], NULL]}}


def document(
    sent: Mapping[str, Any] = BODY,
    received: Mapping[str, Any] = BODY,
    *,
    method: str = "post",
    status: str = "200",
    **operation: Any,
) -> dict[str, Any]:
    """Return a contract with one operation, whose bodies have these schemas."""
    responses = {status: {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Received"}}}}}
    body = {"content": {"application/json": {"schema": sent}}, "required": True}
    return {
        "paths": {"/api/v1/things": {method: {"requestBody": body, "responses": responses} | operation}},
        "components": {"schemas": {"Received": received}},
    }


def with_schemes(*names: str, **operation: Any) -> dict[str, Any]:
    """Return a contract with two security schemes of these names: a bearer token and a cookie."""
    schemes = [{"type": "http", "scheme": "bearer"}, {"type": "apiKey", "in": "cookie", "name": "refresh"}]
    contract = document(**operation)
    contract["components"]["securitySchemes"] = dict(zip(names, schemes, strict=True))
    return contract


def with_name(schema: Mapping[str, Any]) -> dict[str, Any]:
    return BODY | {"properties": {"name": schema}}


A = {"type": "object", "properties": {"of": {"$ref": "#/components/schemas/Received"}}}
OPEN = {"type": "object"}
MORE = BODY | {"properties": {"name": TEXT, "age": TEXT}}


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        (document(), document(method="put"), "was removed"),
        (document(), document(status="202"), "the response 200 was removed"),
        (
            with_schemes("Token", "Cookie"),
            with_schemes("Token", "Cookie", security=[{"Token": []}]),
            "needs authentication",
        ),
        (
            with_schemes("Token", "Cookie", security=[{"Token": []}, {"Cookie": []}]),
            with_schemes("Token", "Cookie", security=[{"Token": []}]),
            "no longer accepts Cookie",
        ),
        (document(operationId="make"), document(operationId="create"), "has operationId create instead of make"),
        (
            document(sent=with_name({"type": "integer"})),
            document(sent=with_name({"type": "integer", "exclusiveMinimum": 0})),
            "request body, name has exclusiveMinimum 0 instead of none",
        ),
        (
            document(sent=OPEN),
            document(sent=OPEN | {"additionalProperties": False}),
            "request body allows no other members",
        ),
        (
            # The second choice must not hide what the first one has found in the schema that both refer to.
            document(sent={"anyOf": [A, A | {"required": []}]}),
            document(sent={"anyOf": [A, A | {"required": []}]}, received=BODY | {"required": ["name", "age"]}),
            "request body, of needs age",
        ),
        (document(parameters=[LIMIT]), document(), "the query parameter limit was removed"),
        (document(), document(parameters=[LIMIT | {"required": True}]), "the query parameter limit is required"),
        (
            document(parameters=[LIMIT]),
            document(parameters=[LIMIT | {"schema": {"type": "integer", "maximum": 100}}]),
            "parameter limit has maximum 100 instead of 200",
        ),
        (document(sent=MORE), document(), "request body has no age"),
        (document(), document(sent=MORE | {"required": ["name", "age"]}), "request body needs age"),
        (document(), document(sent=with_name({"type": "integer"})), "request body, name is integer instead of string"),
        (
            document(sent=with_name({"anyOf": [TEXT, NULL]})),
            document(),
            "request body, name may no longer be null",
        ),
        (document(), document(sent=with_name(TEXT | {"pattern": "^a"})), "request body, name has another pattern"),
        (document(), document(sent=with_name(TEXT | {"enum": ["a"]})), "request body, name has fewer values"),
        (document(received=MORE), document(), "response 200 has no age"),
        (document(), document(received=BODY | {"required": []}), "response 200 may lack name"),
        (document(), document(received=with_name({"type": ["string", "null"]})), "response 200, name may be null"),
        (
            document(received=with_name(TEXT | {"const": "a"})),
            document(received=with_name(TEXT | {"enum": ["a", "b"]})),
            "response 200, name has more values",
        ),
    ],
)
def test_a_change_that_breaks_clients_is_found(old: dict[str, Any], new: dict[str, Any], change: str) -> None:
    """Clients break when less is accepted, or when something else is returned."""
    found = [*program.breaking_changes(old, new)]
    operation = "POST /api/v1/things"
    assert found == [(operation, change)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (document(), document()),
        (document(), document(sent=MORE)),
        (document(), document(received=MORE)),
        (document(), document(parameters=[LIMIT])),
        (
            with_schemes("Token", "Cookie", security=[{"Token": []}]),
            with_schemes("Access", "Refresh", security=[{"Access": []}, {}]),
        ),
        (document(parameters=[NULLABLE]), document(parameters=[LIMIT])),
        (document(sent=with_name({"type": "integer"})), document(sent=with_name({"type": "number"}))),
        (document(sent=with_name({"type": "integer"})), document(sent=with_name({}))),
        (document(sent=with_name(TEXT | {"enum": ["a"]})), document(sent=with_name(TEXT | {"enum": ["a", "b"]}))),
        (document(sent=with_name(TEXT | {"maxLength": 5})), document(sent=with_name(TEXT | {"maxLength": 9}))),
        (document(received=with_name({"anyOf": [TEXT, NULL]})), document()),
        (document(), document(sent=with_name({"anyOf": [TEXT, NULL]}))),
    ],
)
def test_other_changes_are_none(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Clients work on when more is accepted, and when members are added to responses."""
    assert [*program.breaking_changes(old, new)] == []


def test_an_entry_names_the_operation() -> None:
    """Entries under Changed and Removed above the release count; the path may lack its beginning."""
    changelog = """
## Unreleased

### Added

- `GET /added`

### Changed

- api: `POST /things` needs a name.

## 0.1.0 - 2026-11-26

### Changed

- `GET /released`
"""
    entries = program.changed_entries(changelog, "0.1.0")
    assert program.is_named("POST /api/v1/things", entries)
    for operation in ("GET /api/v1/things", "POST /api/v1/things/{id}", "GET /api/v1/added", "GET /api/v1/released"):
        assert not program.is_named(operation, entries)


def test_the_contract_keeps_that_of_the_last_release() -> None:
    """Each breaking change since the last release is in the changelog; a clone without its commit is not compared."""
    run = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout

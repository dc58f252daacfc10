"""Problem documents in OpenAPI: one named schema for each code, and one for each set of codes of a response.

Responses hold the schemas inline until `name_problems` moves them to the document's components.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from http import HTTPStatus
from typing import Any, Final

from tequipy_platform._errors import DomainError, NotFound
from tequipy_platform.web.problems import (
    PROBLEM_MEDIA_TYPE,
    HeadTooLarge,
    InternalError,
    MethodNotAllowed,
    RequestTimeout,
    status_of,
)

_GENERAL: Final = (HeadTooLarge, InternalError, MethodNotAllowed, NotFound, RequestTimeout)
"""Errors of every route, and of paths that are no route: in `Problem`, but not in the responses of each operation."""

_JOINED_CODES: Final = 3
"""The number of codes up to which the name of a set consists of the names of its codes."""


def problem_responses(*errors: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses=` for these errors: for each status the schemas and examples of its codes."""
    by_status: dict[int, list[type[DomainError]]] = {}
    for error in errors:
        by_status.setdefault(status_of(error), []).append(error)
    return {
        status: {
            "description": " ".join(dict.fromkeys(error.detail for error in kinds)),
            "content": {
                PROBLEM_MEDIA_TYPE: {
                    "schema": {"oneOf": [*{error.code: _schema(error) for error in kinds}.values()]},
                    "examples": {error.code: {"value": _example(error)} for error in kinds},
                }
            },
        }
        for status, kinds in sorted(by_status.items())
    }


def document_problems(operation: dict[str, Any], *errors: type[DomainError]) -> None:
    """Add errors to an operation of an OpenAPI document, beside those that it documents for the same status.

    Problems with a schema of the host's own stay as they are. For functions that `extend_openapi` calls.
    """
    for status, added in problem_responses(*errors).items():
        response = operation["responses"].setdefault(str(status), added)
        if response is added:
            continue
        more = added["content"][PROBLEM_MEDIA_TYPE]
        known = response.setdefault("content", {}).setdefault(PROBLEM_MEDIA_TYPE, more)
        if known is more or not _is_unnamed(known):
            continue
        names = {schema["title"] for schema in known["schema"]["oneOf"]}
        new = [schema for schema in more["schema"]["oneOf"] if schema["title"] not in names]
        if new:
            known["schema"]["oneOf"] += new
            known["examples"] = more["examples"] | known["examples"]
            response["description"] += f" {added['description']}"


def name_problems(document: dict[str, Any]) -> None:
    """Replace the problems of all responses by references to components.

    The component of a code is named after it (`InvalidCredentialsProblem`), that of several codes after all of them
    (`LoginLockedOrRateLimitedProblem`), or after operation and status if there are more than three
    (`RefreshUnauthorizedProblem`). `Problem` is any of them: the schema of other client errors of an operation that
    documents none.
    """
    components = document.setdefault("components", {})
    schemas, examples = components.setdefault("schemas", {}), components.setdefault("examples", {})
    _document_other_errors(document, examples)
    for operation, status, problem in _problems_of(document):
        codes = sorted(problem["examples"])
        for schema in problem["schema"]["oneOf"]:
            schemas.setdefault(schema["title"], _with_named_items(schema, schemas))
        for code, example in problem["examples"].items():
            examples.setdefault(code, example)
        problem["examples"] = _references(codes)
        name = _union_name(operation, status, codes)
        if len(codes) > 1:
            schemas[name] = _union(name, codes)
        problem["schema"] = _reference(name)
    for error in _GENERAL:
        schemas.setdefault(_name(error.code), _schema(error))
    schemas["Problem"] = _union("Problem", sorted({*examples, *(error.code for error in _GENERAL)}))
    components["schemas"] = dict(sorted(schemas.items()))
    components["examples"] = dict(sorted(examples.items()))


def _document_other_errors(document: dict[str, Any], examples: dict[str, Any]) -> None:
    """Add the response `4XX` with any `Problem` to operations that document no client error."""
    errors = {error.code: error for error in _GENERAL if status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR}
    for operation in operations_of(document):
        if not any(status.startswith("4") for status in operation["responses"]):
            examples.update({code: {"value": _example(error)} for code, error in errors.items()})
            operation["responses"]["4XX"] = {
                "description": "An error that every route can have, such as too large a head.",
                "content": {PROBLEM_MEDIA_TYPE: {"schema": _reference("Problem"), "examples": _references([*errors])}},
            }


def _with_named_items(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Move the items of arrays that have a title to the components, because generators number what has no name."""
    for member in schema["properties"].values():
        if (title := member.get("items", {}).get("title")) is not None:
            schemas[title], member["items"] = member["items"], _reference(title)
    return schema


def operations_of(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the operations of a document."""
    for operations in document["paths"].values():
        yield from operations.values()


def _problems_of(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Yield operation, status and content of each response whose problems have no names yet."""
    for operation in operations_of(document):
        for status, response in operation["responses"].items():
            problem = response.get("content", {}).get(PROBLEM_MEDIA_TYPE, {})
            if _is_unnamed(problem):
                yield operation, status, problem


def _is_unnamed(problem: dict[str, Any]) -> bool:
    """Return whether this is the content that `problem_responses` has made, and not one of the host's own."""
    schemas = problem.get("schema", {}).get("oneOf", ())
    return "examples" in problem and any(schemas) and all("title" in each for each in schemas)


def _schema(error: type[DomainError]) -> dict[str, Any]:
    """Return the schema of one code; flat, because generators do not agree on what inherited members are."""
    text: dict[str, Any] = {"type": "string"}
    properties: dict[str, Any] = {
        "type": text | {"const": f"urn:tequipy:problem:{error.code}"},
        "title": text,
        "status": {"type": "integer", "const": status_of(error)},
        "detail": text,
        "code": text | {"const": error.code},
        "correlation_id": {"type": ["string", "null"]},
        **deepcopy(error.member_schemas),
    }
    return {
        "title": _name(error.code),
        "description": error.detail,
        "type": "object",
        "properties": properties,
        "required": [*properties],
    }


def _union(name: str, codes: list[str]) -> dict[str, Any]:
    references = {code: _reference(_name(code)) for code in codes}
    mapping = {code: reference["$ref"] for code, reference in references.items()}
    return {
        "title": name,
        "oneOf": [*references.values()],
        "discriminator": {"propertyName": "code", "mapping": mapping},
    }


def _union_name(operation: dict[str, Any], status: str, codes: list[str]) -> str:
    if len(codes) <= _JOINED_CODES:
        return "Or".join(_camel(code) for code in codes) + "Problem"
    return f"{_camel(operation['operationId'])}{_camel(HTTPStatus(int(status)).name.lower())}Problem"


def _name(code: str) -> str:
    return f"{_camel(code)}Problem"


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in re.sub("_(failed|error)$", "", name).split("_"))


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _references(codes: list[str]) -> dict[str, Any]:
    return {code: {"$ref": f"#/components/examples/{code}"} for code in codes}


def _example(error: type[DomainError]) -> dict[str, Any]:
    members: Mapping[str, Any] = error.member_schemas
    return {
        "type": f"urn:tequipy:problem:{error.code}",
        "title": error.title,
        "status": status_of(error),
        "detail": error.detail,
        "code": error.code,
        "correlation_id": "5f0c6d2e9b7a4c1d8e3f2a1b0c9d8e7f",
        **{name: schema["examples"][0] for name, schema in members.items()},
    }

"""Request bodies: malformed JSON, media types, limits of size and members, and faults of validation."""

import json
import logging
from typing import Any

import httpx
import pytest

from .example_app import SECRET, client, make_app, post, problem


def object_of(members: int, *more: str) -> str:
    """Return a JSON object with `members` members and the given others after them."""
    return "{" + ",".join([*(f'"{number}":0' for number in range(members)), *more]) + "}"


async def test_validation_names_fields_and_never_echoes() -> None:
    """A 422 points at each field by JSON pointer and repeats nothing of the input."""
    body = {"email": 5, "password": [SECRET], "day": SECRET, "tags": ["a", 7], "is_admin": SECRET, SECRET: 1}
    response = await post(json.dumps(body).encode())
    document = problem(response)
    assert (response.status_code, document["code"]) == (422, "validation_failed")
    assert {(error["pointer"], error["code"]) for error in document["errors"]} == {
        ("/email", "string_type"),
        ("/password", "string_type"),
        ("/day", "date_from_datetime_parsing"),
        ("/tags/1", "string_type"),
        ("", "extra_forbidden"),  # points at the object, once, because an unknown name may be a secret
    }
    assert SECRET not in response.text


@pytest.mark.parametrize("value", ["1", '"\\u0000"', '{"\\u0000": 1}', '{"SECRET2": "\\ud800"}', "[{}]"])
async def test_the_name_of_an_unknown_field_is_repeated_nowhere(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Response and log point at the object that holds the unknown field, never at its name, which may be a secret."""
    with caplog.at_level(logging.DEBUG):
        response = await post(f'{{"email": "a", "SECRET1": {value}}}'.encode())
    assert response.status_code == 422
    assert {error["pointer"] for error in problem(response)["errors"]} == {""}
    assert "SECRET" not in response.text + caplog.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (object_of(1_000), 422),
        (object_of(1_001), 400),
        (object_of(6_000), 400),
        (f"[{','.join([object_of(400)] * 5)}]", 422),  # no single object is too large
        (f'{{"a": [{{"b": {object_of(1_001)}}}]}}', 400),
        (object_of(999, f'"last": {object_of(3)}'), 422),
        (object_of(999, f'"o": {object_of(3)}, "p": 1'), 400),
        (object_of(990, '"colons": "' + ":" * 5_000 + '"'), 422),
    ],
    ids=["1,000", "1,001", "6,000", "many small", "nested", "around", "around too many", "colons in a string"],
)
async def test_an_object_has_a_thousand_members_at_most(body: str, status: int) -> None:
    """An object with more than 1,000 members is refused before validation, wherever it is in the body."""
    response = await post(body.encode())
    assert (response.status_code, problem(response)["code"]) == (
        status,
        {400: "malformed_body", 422: "validation_failed"}[status],
    )


async def test_the_number_of_errors_is_bounded() -> None:
    """A body with ten thousand wrong items gives fifty faults."""
    response = await post(json.dumps({"email": "a", "tags": list(range(10_000))}).encode())
    assert len(problem(response)["errors"]) == 50


DIGITS = b"1" * 5_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 422, id="nothing"),
        pytest.param(b"{", 400, id="cut off"),
        pytest.param(b'"' + b'\\"' * 30_000, 400, id="string without end"),
        pytest.param(b"null", 422, id="null"),
        pytest.param(b'{"email": NaN}', 400, id="NaN"),
        pytest.param(b'{"email": "a", "ratio": -Infinity}', 400, id="Infinity"),
        pytest.param(b'{"email": "a", "ratio": 1e999}', 422, id="float overflow"),
        pytest.param(b'{"email": "NaN [[[["}', 200, id="NaN within a string"),
        pytest.param(b'{"email": ' + DIGITS + b"}", 400, id="5,000 digits"),
        pytest.param(b'{"email": "a", "ratio": 1' + b"0" * 5_000 + b"}", 400, id="5,000 digits for a number"),
        pytest.param(b"[" * 50_000, 400, id="deep, cut off"),
        pytest.param(b'{"email": "a", "tags": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, id="deep"),
        pytest.param(b'{"a":' * 15_000 + b"1" + b"}" * 15_000, 400, id="deep objects"),
        pytest.param(b'{"email": "\xff\xfe"}', 400, id="invalid UTF-8"),
        pytest.param('{"email": "a"}'.encode("utf-16"), 400, id="UTF-16"),
        pytest.param('{"email": "a"}'.encode("utf-16-be"), 400, id="UTF-16 without mark"),
        pytest.param('{"email": "a"}'.encode("utf-32-le"), 400, id="UTF-32"),
        pytest.param(b'{"email": "\\u0000"}', 422, id="NUL"),
        pytest.param(b'{"email": "a\\ud800"}', 422, id="lone surrogate"),
        pytest.param(b'{"email": "a", "password": "\\u0000"}', 422, id="NUL in a secret"),
        pytest.param(b'{"email": "a", "password": "\\udfff"}', 422, id="lone surrogate in a secret"),
        pytest.param(b'{"email": "a", "\\ud800": 1}', 422, id="lone surrogate in a name"),
        pytest.param(b'{"email": "a", "labels": {"\\u0000": 1}}', 422, id="NUL in a label"),
        pytest.param(b'{"email": "a", "tags": ["\\u0000"]}', 422, id="NUL in a list"),
        pytest.param(b'{"email": "\\ud83d\\ude00"}', 200, id="a pair of surrogates"),
        pytest.param(b'{"email": "a"}', 200, id="well-formed"),
    ],
)
async def test_malformed_bodies_give_client_errors(body: bytes, status: int) -> None:
    """No JSON body causes a 5xx, and valid ones pass."""
    response = await post(body)
    assert response.status_code == status
    if status == 400:
        assert problem(response)["code"] == "malformed_body"
    elif status == 422:
        assert problem(response)["errors"]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "json"])
async def test_other_media_types_are_unsupported(content_type: str) -> None:
    """A body that is not declared as JSON gives 415."""
    response = await post(b'{"email": "a"}', content_type=content_type)
    assert (response.status_code, problem(response)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/echo", "/small/echo"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_have_a_limit(path: str, chunked: bool) -> None:
    """A body over the limit of its path gives 413, with or without Content-Length; one at the limit passes."""
    size = 64 if path.startswith("/small") else 100_000

    async def send(length: int) -> httpx.Response:
        whole = b'{"email": "' + b"a" * (length - 13) + b'"}'
        assert len(whole) == length

        async def chunks() -> Any:
            for start in range(0, length, 16):
                yield whole[start : start + 16]

        async with client(make_app()) as http:
            return await http.post(
                path, content=chunks() if chunked else whole, headers={"content-type": "application/json"}
            )

    assert (await send(size)).status_code == 200
    too_large = await send(size + 1)
    assert (too_large.status_code, problem(too_large)["code"]) == (413, "body_too_large")

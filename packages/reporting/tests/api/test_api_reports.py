"""The routes of reports: statuses, headers and bodies."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tequipy_platform import Delivery
from tequipy_platform.testing import EPOCH
from tequipy_reporting import ReportFormat, ReportKind
from tequipy_reporting.testing import FakeReportWriter, MemoryReportingUnitOfWork

from .conftest import World

BODY = {"kind": "user_activity", "from": "2026-01-01", "to": "2026-01-31", "format": "csv"}
CONTENT = b"at,action\r\n"


async def ask(world: World, **changes: Any) -> str:
    answer = await world.call("POST", json=BODY | changes)
    assert answer.status_code == 202, answer.text
    report_id: str = answer.json()["id"]
    return report_id


async def generate(world: World, report_id: str) -> None:
    service = world.reporting.generation({(ReportKind.USER_ACTIVITY, ReportFormat.CSV): FakeReportWriter(CONTENT)})
    await service.generate(Delivery(uuid4(), "reporting.generate_report"), report_id)


async def test_a_report_is_requested(world: World) -> None:
    """The answer is 202 with the report and its address; it shows what was asked for and no file yet."""
    answer = await world.call("POST", json=BODY)
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == f"/api/v1/reports/{body['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert body == BODY | {
        "id": body["id"],
        "status": "queued",
        "progress": 0,
        "error_code": None,
        "created_at": EPOCH.isoformat().replace("+00:00", "Z"),
        "finished_at": None,
        "size_bytes": None,
    }
    shown = await world.call("GET", f"/{body['id']}", caller="support")
    assert (shown.status_code, shown.json()) == (200, body)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"from": "2026-01-20", "to": "2026-01-10"}, "/to"),
        ({"to": "2026-02-01"}, "/to"),
        ({"from": "2026-02-01", "to": "2026-02-01"}, "/from"),
        ({"from": "2024-01-01"}, "/to"),
        ({"from": "2026-13-01"}, "/from"),
        ({"from": None}, "/from"),
        ({"from": 0}, "/from"),
        ({"from": "2026-01-01T00:00:00Z"}, "/from"),
        ({"from": "1767225600"}, "/from"),
        ({"kind": "other"}, "/kind"),
        ({"format": "xlsx"}, "/format"),
        ({"secret": 1}, ""),
    ],
)
async def test_an_invalid_request_names_the_field(
    changes: dict[str, Any], pointer: str, world: World, work: MemoryReportingUnitOfWork
) -> None:
    """The answer is 422 with a pointer to the field, and nothing is stored."""
    answer = await world.call("POST", json=BODY | changes)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    assert work.reports.rows == {}


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"])
async def test_a_request_is_json(content_type: str, world: World) -> None:
    """Other media types are refused with 415."""
    answer = await world.call("POST", content="{}", headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_repeated_request_gets_the_first_answer(world: World, work: MemoryReportingUnitOfWork) -> None:
    """With the same `Idempotency-Key` the answer is the first one, bytes and address, also when the report is done."""
    key = {"Idempotency-Key": "one"}
    first = await world.call("POST", json=BODY, headers=key)
    await generate(world, first.json()["id"])
    again = await world.call("POST", json=BODY, headers=key)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]
    other = await world.call("POST", json=BODY | {"format": "pdf"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(work.reports.rows) == 1


async def test_too_many_reports_are_refused(world: World) -> None:
    """Over the limit the answer is 429 with `Retry-After`."""
    for _ in range(world.reporting.policy.max_waiting):
        await ask(world)
    answer = await world.call("POST", json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_reports")
    assert int(answer.headers["retry-after"]) >= 1


async def test_reports_are_listed_in_pages(world: World) -> None:
    """Pages show all reports, the newest first; a wrong cursor or limit is 422."""
    ids = [await ask(world) for _ in range(3)]
    page = (await world.call("GET", params={"limit": 2})).json()
    rest = (await world.call("GET", params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None
    for wrong in ({"limit": 0}, {"cursor": "x"}):
        assert (await world.call("GET", params=wrong)).status_code == 422


async def test_the_tag_of_a_report_changes_with_its_state(world: World, work: MemoryReportingUnitOfWork) -> None:
    """An unchanged report is 304 for its tag; progress and end change the tag."""
    report_id = await ask(world)
    tags, attempt = [], uuid4()
    for step in ("queued", "running", "done"):
        if step == "running":
            await work.reports.begin(UUID(report_id), attempt, message_id=uuid4(), at=EPOCH)
            await work.reports.advance(UUID(report_id), attempt, 0.5, at=EPOCH)
        elif step == "done":
            await work.reports.complete(
                UUID(report_id), attempt, at=EPOCH, storage_key="k", size_bytes=1, sha256="0" * 64
            )
        answer = await world.call("GET", f"/{report_id}")
        assert (answer.status_code, answer.json()["status"]) == (200, step)
        tags.append(answer.headers["etag"])
        unchanged = await world.call("GET", f"/{report_id}", headers={"If-None-Match": tags[-1]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert len(set(tags)) == 3


async def test_the_file_is_downloaded(world: World) -> None:
    """The content has name, media type, length and a strong tag; a range and an unchanged file are answered."""
    report_id = await ask(world)
    path = f"/{report_id}/content"
    early = await world.call("GET", path)
    assert (early.status_code, early.json()["code"]) == (409, "report_not_ready")
    await generate(world, report_id)
    whole = await world.call("GET", path, caller="support")
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    assert whole.headers["content-length"] == str(len(CONTENT))
    named = 'attachment; filename="user_activity_2026-01-01_2026-01-31.csv"'
    assert whole.headers["content-disposition"] == named
    part = await world.call("GET", path, headers={"Range": "bytes=3-6"})
    assert (part.status_code, part.content) == (206, CONTENT[3:7])
    beyond = await world.call("GET", path, headers={"Range": "bytes=99-"})
    assert beyond.status_code == 416
    unchanged = await world.call("GET", path, headers={"If-None-Match": whole.headers["etag"]})
    assert unchanged.status_code == 304


async def test_a_report_is_cancelled_and_deleted(world: World) -> None:
    """DELETE cancels an unfinished report, then deletes it, and then it is 404, as its file."""
    report_id = await ask(world)
    for expected in (204, 204, 404):
        assert (await world.call("DELETE", f"/{report_id}")).status_code == expected
    done = await ask(world)
    await generate(world, done)
    assert (await world.call("DELETE", f"/{done}")).status_code == 204
    for path in (f"/{done}", f"/{done}/content"):
        assert (await world.call("GET", path)).status_code == 404


async def test_the_export_of_an_account_lists_its_reports(world: World) -> None:
    """`GET /me/export` has a section `reports` with the caller's reports."""
    report_id = await ask(world)
    answer = await world.client.get("/api/v1/auth/me/export", headers=world.headers["admin"])
    assert [each["id"] for each in answer.json()["reports"]] == [report_id]
    other = await world.client.get("/api/v1/auth/me/export", headers=world.headers["support"])
    assert other.json()["reports"] == []


def test_each_route_names_its_permission(world: World) -> None:
    """The OpenAPI document names the permission of each route."""
    for path, operations in world.app.openapi()["paths"].items():
        if path.startswith("/api/v1/reports"):
            for method, operation in operations.items():
                permission = "reports:read" if method == "get" else "reports:write"
                assert f"Requires the permission `{permission}`." in operation["description"]

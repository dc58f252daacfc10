"""Reports as PDF: their data, and whom they name."""

from datetime import date, datetime
from io import BytesIO
from uuid import UUID

import pytest
from pypdf import PdfReader

from tequipy_auth import AuditAction, AuditEvent, Auth, UserFilter
from tequipy_auth.testing import MemoryAuthUnitOfWork, build_fake_auth
from tequipy_platform import Delivery, PageRequest
from tequipy_platform.testing import EPOCH, FrozenClock
from tequipy_reporting import PERMISSIONS, Chunk, Period, Report, ReportFormat, ReportKind
from tequipy_reporting.infrastructure.pdf_report import PdfReport
from tequipy_reporting.testing import MemoryReportingUnitOfWork, build_fake_reporting

PERIOD = Period(date(2026, 1, 1), EPOCH.date())
REQUESTED_AT = datetime.fromisoformat("2026-01-31T10:00:00Z")


@pytest.fixture
def accounts(clock: FrozenClock) -> MemoryAuthUnitOfWork:
    return MemoryAuthUnitOfWork(clock)


@pytest.fixture
def auth(accounts: MemoryAuthUnitOfWork) -> Auth:
    return build_fake_auth(accounts, permissions=PERMISSIONS)


@pytest.fixture
def pdf(auth: Auth, work: MemoryReportingUnitOfWork, clock: FrozenClock) -> PdfReport:
    reporting = build_fake_reporting(work, auth=auth, clock=clock)
    return PdfReport(reporting.activity, auth.administration)


async def written(pdf: PdfReport, requested_by: UUID | None) -> list[Chunk]:
    report = Report(
        UUID(int=1),
        ReportKind.USER_ACTIVITY,
        ReportFormat.PDF,
        PERIOD,
        requested_by,
        created_at=REQUESTED_AT,
        updated_at=EPOCH,
    )
    return [chunk async for chunk in pdf.write(report)]


async def text_of(pdf: PdfReport, requested_by: UUID | None) -> str:
    content = b"".join([chunk.data for chunk in await written(pdf, requested_by)])
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)


async def only_account(auth: Auth) -> UUID:
    (user,) = (await auth.administration.users(PageRequest(), UserFilter())).items
    return user.id


async def test_the_aggregated_days_are_written(
    pdf: PdfReport, auth: Auth, accounts: MemoryAuthUnitOfWork, work: MemoryReportingUnitOfWork, clock: FrozenClock
) -> None:
    """Each day of the period is a row, with the counts of the table of daily activity."""
    for _ in range(3):
        accounts.audit.record(AuditEvent(AuditAction.LOGIN_OK, subject_id=UUID(int=7)))
    reporting = build_fake_reporting(work, auth=auth, clock=clock)
    await reporting.activity.aggregate(Delivery(UUID(int=2), "aggregate"))
    text = await text_of(pdf, None)
    assert "2026-01-31 0 3 0 1" in text
    assert "2026-01-30 0 0 0 0" in text
    assert "Busiest day: 2026-01-31, 3 logins" in text
    assert "Requested at 2026-01-31 10:00 UTC" in text


async def test_the_account_is_named_as_far_as_it_is_known(pdf: PdfReport, auth: Auth) -> None:
    """An account without a name is named by its address; one that was erased is not named."""
    await auth.registration.create_admin(email="ada@example.com", password="correct horse battery staple")
    assert "Requested by ada@example.com" in await text_of(pdf, await only_account(auth))
    assert "Requested by A deleted account" in await text_of(pdf, UUID(int=9))
    assert "Requested by A deleted account" in await text_of(pdf, None)


async def test_the_progress_ends_at_one(pdf: PdfReport) -> None:
    """The last chunk says that the file is complete."""
    chunks = await written(pdf, None)
    assert chunks[-1].progress == 1
    assert all(len(chunk.data) <= 64 * 1024 for chunk in chunks)

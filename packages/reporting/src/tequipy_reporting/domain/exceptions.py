"""Errors of reporting."""

from tequipy_platform import Conflict, TooMany


class ReportNotReady(Conflict):
    """The report has no file: it waits, runs, has failed, was cancelled, or has expired."""

    code = "report_not_ready"
    title = "Report not ready"
    detail = "This report has no file: see its status."


class TooManyReports(TooMany):
    """The account has as many unfinished reports as it may have."""

    code = "too_many_reports"
    title = "Too many reports"
    detail = "Too many of your reports are unfinished: wait for some of them, or cancel them."

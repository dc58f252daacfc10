"""The names of reporting's background tasks, for services that add messages and for the declarations in `tasks`."""

from typing import Final

GENERATE_REPORT: Final = "reporting.generate_report"
REMOVE_FILES: Final = "reporting.remove_files"
ERASE_ACCOUNT: Final = "reporting.erase_account"
EXPIRE_REPORTS: Final = "reporting.expire_reports"
RESUME_REPORTS: Final = "reporting.resume_reports"
AGGREGATE_ACTIVITY: Final = "reporting.aggregate_activity"
WEEKLY_MAIL: Final = "reporting.weekly_mail"
SEND_WEEKLY_MAIL: Final = "reporting.send_weekly_mail"

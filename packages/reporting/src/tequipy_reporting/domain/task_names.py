"""The names of reporting's background tasks, for services that add messages and for the declarations in `tasks`."""

from typing import Final

GENERATE_REPORT: Final = "reporting.generate_report"
REMOVE_FILES: Final = "reporting.remove_files"
ERASE_ACCOUNT: Final = "reporting.erase_account"
EXPIRE_REPORTS: Final = "reporting.expire_reports"
RESUME_REPORTS: Final = "reporting.resume_reports"

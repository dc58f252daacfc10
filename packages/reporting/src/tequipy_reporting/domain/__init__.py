"""The rules of reports and of the daily activity; needs only the standard library and the root modules of packages."""

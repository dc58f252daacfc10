"""The PDF of a report. Its modules need the extra `worker`, and load large libraries."""

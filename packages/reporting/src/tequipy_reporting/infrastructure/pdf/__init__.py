"""The PDF of a report. Its modules need the extra `worker`, and load libraries that take half a second."""

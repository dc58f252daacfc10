"""Logging and metrics: how the process tells operators what happens."""

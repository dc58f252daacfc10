"""Adapters: PostgreSQL, settings, metrics and the writers of files."""

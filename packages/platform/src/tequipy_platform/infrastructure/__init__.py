"""Adapters for PostgreSQL, SMTP, object stores and the environment."""

"""Adapters of auth for PostgreSQL, bcrypt, JWT and address parsing."""

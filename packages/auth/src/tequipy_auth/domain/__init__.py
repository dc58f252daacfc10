"""Business rules for accounts, passwords, tokens and sessions.

Imports only the standard library and the root modules of `tequipy_platform` and `tequipy_caching`.
"""

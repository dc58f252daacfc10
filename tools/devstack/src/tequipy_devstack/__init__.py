"""The local stack: an embedded PostgreSQL, Valkey and mail sink for `make dev` and for the tests; never shipped.

Read `cli` first, then `stack`, `supervisor`, `servers` and `mail_sink`; fixtures for tests are in `pytest_plugin`.
"""

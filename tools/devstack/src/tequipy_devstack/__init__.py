"""The local stack: own PostgreSQL, Valkey and mail sink for `make dev` and for the tests; never shipped.

Read `cli`, then `stack`, `supervisor`, `servers` and `mail_sink`; the tests' fixtures are in `pytest_plugin`.
"""

"""The rules of accounts, passwords, tokens and sessions: standard library and root doors of packages below alone."""

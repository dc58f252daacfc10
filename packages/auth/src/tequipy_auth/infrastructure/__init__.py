"""Auth's adapters: PostgreSQL, bcrypt, JWT, address parsing."""

"""What the ground stands on: PostgreSQL, SMTP, object stores, the environment."""

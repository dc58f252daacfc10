"""Use cases: each public method of a service is one, and runs its own transactions."""

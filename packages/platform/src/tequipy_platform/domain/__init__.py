"""The vocabulary of the ground: errors, tasks, the unit of work and its outbox, health, clock, mail, storage."""

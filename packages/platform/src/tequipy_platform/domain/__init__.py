"""Ports and types without I/O: errors, tasks, events, unit of work, outbox, health, clock, mail, storage."""

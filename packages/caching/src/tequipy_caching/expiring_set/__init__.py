"""Expiring sets, held in the memory of every process."""

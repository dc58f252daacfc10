"""What a request or task is known by while it runs: standard library only, so that every package may stand on it."""

"""The use cases of reporting; each is one function that reads from top to bottom."""

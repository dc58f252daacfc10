"""Logging, metrics, and the port that serves metrics."""

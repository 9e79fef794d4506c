"""Logs and metrics of a request."""

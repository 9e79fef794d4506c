"""Provide in-memory fakes that record their calls."""

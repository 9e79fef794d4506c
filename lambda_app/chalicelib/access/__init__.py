"""Authenticate API keys, enforce plans and shed load."""

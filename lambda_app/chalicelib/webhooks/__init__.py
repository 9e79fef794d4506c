"""Signed delivery of results to the webhook endpoints of customers."""

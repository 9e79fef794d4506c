"""Packaging and deployment of the stack on AWS."""

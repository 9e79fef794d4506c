"""Deployment, images, the local stack and the operator's tools. Nothing deployed imports it."""

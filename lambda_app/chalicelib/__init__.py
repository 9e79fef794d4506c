"""The API: everything but its routes, which are in app.py. The agent imports the package `contract` only."""

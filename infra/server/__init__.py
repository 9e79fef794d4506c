"""The API behind a production server, and what it shares with the local server."""

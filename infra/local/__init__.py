"""The local stack: Docker, an emulated AWS, the agent and the API on one machine."""

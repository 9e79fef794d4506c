"""What builds, deploys, operates and runs python-exec; never part of the API or the agent."""

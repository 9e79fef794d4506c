"""Build tools for the images of the sandbox and of the agent."""

"""Sources of the sandbox image."""

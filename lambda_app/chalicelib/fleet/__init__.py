"""Track the hosts of the fleet and report its health."""

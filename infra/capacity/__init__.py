"""A model of the fleet and its costs."""

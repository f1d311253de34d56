"""A running service under load."""

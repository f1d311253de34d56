"""The lesson on a network's shapes."""

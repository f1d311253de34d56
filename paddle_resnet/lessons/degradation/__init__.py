"""The lesson on degradation."""

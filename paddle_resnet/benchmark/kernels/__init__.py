"""Single operations, forward and backward."""

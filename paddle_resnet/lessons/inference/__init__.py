"""The lesson on inference."""

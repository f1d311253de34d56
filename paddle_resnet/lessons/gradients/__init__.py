"""The lesson on gradients."""

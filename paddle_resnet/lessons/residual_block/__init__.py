"""The lesson on the residual block."""

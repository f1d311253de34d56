"""The lesson on receptive fields."""

"""The lesson on four normalisations."""

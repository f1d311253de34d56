"""The lesson on transfer."""

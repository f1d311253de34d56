"""The lesson on what a network sees."""

"""Image files to predictions."""

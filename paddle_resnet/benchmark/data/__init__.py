"""The training loader."""

"""The loader alone, and its share of a training step."""

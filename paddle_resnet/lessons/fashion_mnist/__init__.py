"""The lesson on the book's ResNet-18."""

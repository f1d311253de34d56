"""The lesson on LeNet-5."""

"""Random changes to whole batches of training images."""

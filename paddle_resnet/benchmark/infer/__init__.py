"""An exported model on batches of pixels."""

"""oneDNN primitives on memory addresses; `onednn.functional` calls them with those of tensors."""

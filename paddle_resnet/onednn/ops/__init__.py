"""oneDNN primitives on buffers, which are addresses here."""

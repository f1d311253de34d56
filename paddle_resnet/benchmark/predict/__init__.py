"""Picture files from the disk to their predictions."""

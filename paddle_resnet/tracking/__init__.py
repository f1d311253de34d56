"""What is written for VisualDL."""

"""The lesson with the exercises of the tutorials, answered."""

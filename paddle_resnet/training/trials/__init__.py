"""Short trainings that choose a value before a run: its learning rate, its number of epochs."""

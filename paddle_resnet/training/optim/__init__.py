"""Optimizers, schedules, losses and the moving average of weights."""

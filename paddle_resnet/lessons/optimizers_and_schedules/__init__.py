"""The lesson on optimizers and schedules."""

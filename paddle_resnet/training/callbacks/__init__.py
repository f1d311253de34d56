"""Callbacks of `paddle.Model.fit` that make up a run."""

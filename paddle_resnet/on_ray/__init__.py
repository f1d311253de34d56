"""Prediction and the service past one machine, on a Ray cluster; needs ``requirements/ray.txt``."""

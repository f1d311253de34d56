"""Plots of results, in one style. Nothing here computes results."""

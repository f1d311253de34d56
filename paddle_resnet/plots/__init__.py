"""Pictures drawn from results, in one style."""

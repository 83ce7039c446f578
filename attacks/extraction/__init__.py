"""Model extraction: a copy of the target from its answers."""

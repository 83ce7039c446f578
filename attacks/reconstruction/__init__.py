"""Reconstruction attacks, one per file."""

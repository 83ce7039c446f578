"""Attacks on records that were released in place of real ones."""

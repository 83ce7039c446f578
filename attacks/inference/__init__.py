"""Attribute inference: hidden values of a record, from what a model says of it."""

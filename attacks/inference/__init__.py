"""Inference attacks: what a model gives away about hidden values of a record, and about itself."""

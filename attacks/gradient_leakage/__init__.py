"""Gradient leakage: records and labels from what a participant of a training sends."""

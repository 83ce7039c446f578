"""What attacks claimed, joined with the truth: one file for each kind of claim."""

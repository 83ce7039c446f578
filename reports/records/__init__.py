"""Records that cross from a run to its readers: each a versioned schema of its own."""

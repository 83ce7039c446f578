"""What schemes are made of: clipping, local noise, noisy tables, principal components."""

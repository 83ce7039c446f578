"""Benchmarks against plain PyTorch, Opacus and ART: `python -m benchmarks`; nothing imports this package."""

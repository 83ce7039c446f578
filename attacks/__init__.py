"""How an adversary measures what a trained model leaks."""

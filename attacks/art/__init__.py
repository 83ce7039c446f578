"""Attacks of the Adversarial Robustness Toolbox (ART) as named baselines; listed where the extra `art` is installed."""

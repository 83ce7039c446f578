"""Clipping thresholds that follow a quantile of the per-example gradient norms, one rule per file."""

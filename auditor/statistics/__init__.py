"""Measures of attacks, with intervals that cover at finite sample sizes."""

"""Finds what is wrong in somebody's own DP-SGD: a battery of checks run against their code, cheapest first."""

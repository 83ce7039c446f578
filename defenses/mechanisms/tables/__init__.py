"""Differentially private tables of counts, and synthetic rows drawn from them.

Each count gets integer Laplace noise; the budget is split evenly over the tables. Everything after that is free:
tables that share a column are made to agree, cells below zero are removed, and rows are drawn along a tree of the pairs
whose dependence stands out of the noise.
"""

from defenses.mechanisms.tables.domains import Bins, Categories, equal_bins, whole_numbers
from defenses.mechanisms.tables.fidelity import total_variations
from defenses.mechanisms.tables.frames import release_tables
from defenses.mechanisms.tables.margins import Ways
from defenses.mechanisms.tables.released import Released

__all__ = [
    "Bins",
    "Categories",
    "Released",
    "Ways",
    "equal_bins",
    "release_tables",
    "total_variations",
    "whole_numbers",
]

"""Several schemes and budgets on one data set: claimed, proved and shown side by side, and what they cost."""

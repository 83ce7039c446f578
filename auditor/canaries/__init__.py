"""Canaries: records planted into anybody's training data by fair coins, so that its training can be audited afterwards.

`kinds/` holds what a canary can be, `forms/` how data is written back in the form that it came in, one file each.
"""

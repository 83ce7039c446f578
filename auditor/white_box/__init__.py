"""Audits of training from the inside: gradient canaries in single steps or in whole runs."""

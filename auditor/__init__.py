"""Plan, train, attack, judge, record: the audit of a trained model, as a Python API and a command line."""

"""A report held against a policy: rows, an exit code, and the formats that CI systems read."""

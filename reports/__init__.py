"""What an audit found, as data, and how people and CI read it; nothing here loads torch."""

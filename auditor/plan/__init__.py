"""The plan of an audit: what TOML may say, and the objects that it stands for."""

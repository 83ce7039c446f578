"""Records as pages and as Markdown, for people: pure functions of a record."""

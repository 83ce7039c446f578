"""Files that somebody else wrote, and files that a command leaves behind."""

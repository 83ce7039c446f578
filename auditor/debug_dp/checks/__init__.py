"""One check of somebody's DP-SGD per file; the folder is the list."""

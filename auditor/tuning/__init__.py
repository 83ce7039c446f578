"""The feedback loop: the least noise at which what attacks find stays under a threshold."""

"""How a model is trained under a privacy scheme, and what that proves."""

"""What a data owner does alone, before anything leaves the house: prepare, add noise, randomise labels; NumPy only.

`gradient_rule` is the exception: it is the engine's side of the same scheme, and needs torch.
"""

"""How K models train at once: the loop, the stack, gradients per example, layouts, executors and the store."""

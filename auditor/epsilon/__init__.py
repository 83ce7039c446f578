"""Lower bounds on epsilon, one method a file: pure functions of what an attack got right."""

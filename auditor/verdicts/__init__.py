"""From evidence to verdicts: on limits, on privacy claims, and on what the audit itself rests on."""

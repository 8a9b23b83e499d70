"""Private machinery of one pass: checks, probing, recording, memory, arithmetic."""

"""Which images get a label from the teachers, and which label."""

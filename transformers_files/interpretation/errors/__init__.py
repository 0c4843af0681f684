"""What all error messages have in common."""

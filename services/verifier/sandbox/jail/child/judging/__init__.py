"""What a judge process does besides asking: runs tests, checkers and calls, and keeps their results."""

"""Mathematical answers: what they say, and whether two of them are the same."""

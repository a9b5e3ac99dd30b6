"""Units behind values: the phrases that name them, their sizes, and the words of counted things."""

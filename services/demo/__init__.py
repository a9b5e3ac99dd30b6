"""The demo task: expressions reduced step by step, with a small model that has begun to learn it."""

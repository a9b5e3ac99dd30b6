"""The demo task: expressions that are reduced step by step, and a small model that has begun to learn it."""

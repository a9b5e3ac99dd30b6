"""Worker processes that run one function and can be killed at any time."""

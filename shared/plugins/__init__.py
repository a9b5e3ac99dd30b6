"""Code of the user's own: how long a call of it may take, and the processes it runs in."""

"""The work inside the jail: runs in the children. The fork-server imports it, so that a fork is all a child costs."""

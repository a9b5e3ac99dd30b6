"""Parts of a method that are not built in, one in each file (docs/own-parts.md)."""

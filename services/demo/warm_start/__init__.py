"""The supervised warm start that makes the shipped checkpoint: `python -m services.demo.warm_start`."""

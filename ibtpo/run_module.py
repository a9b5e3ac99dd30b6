"""Runs a module of ours, wherever it is started: `python -m ibtpo.run_module NAME ARGUMENT…`."""

import runpy
import sys

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

"""A process for code of the user's own: `python -m ibtpo.run_module shared.plugins SOCKET`."""

import sys

from shared.plugins.child import serve

if __name__ == "__main__":
    serve(int(sys.argv[1]))

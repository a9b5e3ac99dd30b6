"""`python -m ibtpo`, and the entry of the `ibtpo` command."""

import sys


def main() -> None:
    """Runs the command; what it imports of ours is ours wherever it is started."""
    try:
        from services.launcher.cli import main as run_command

        run_command()
    except KeyboardInterrupt:  # while it is imported; afterwards each command ends in its own way
        sys.exit(130)


if __name__ == "__main__":
    main()

"""`python -m ibtpo`, and the entry of the `ibtpo` command."""


def main() -> None:
    """Runs the command; what it imports of ours is ours wherever it is started."""
    from services.launcher.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()

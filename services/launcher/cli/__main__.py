"""`python -m services.launcher.cli`."""

from services.launcher.cli.root import main

if __name__ == "__main__":
    main()

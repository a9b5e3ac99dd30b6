"""python -m benchmarks.weights: see benchmarks/weights/command.py."""

if __name__ == "__main__":  # the processes that it starts import this module, too
    from benchmarks.weights.command import main

    main()

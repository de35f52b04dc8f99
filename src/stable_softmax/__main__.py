"""`python -m stable_softmax`, and the console script `stable-softmax`."""

import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        from stable_softmax._commands import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "flint"):
            raise
        print(f'The command needs {error.name}: python -m pip install "stable-softmax[report]"', file=sys.stderr)
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()

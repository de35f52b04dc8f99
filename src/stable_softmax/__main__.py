"""`python -m stable_softmax`, and the console script `stable-softmax`: the stability report."""

import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        from stable_softmax.report._command import app
    except ModuleNotFoundError as error:
        sys.exit(f'The report needs {error.name}: python -m pip install "stable-softmax[report]"')
    app()


if __name__ == "__main__":
    main()

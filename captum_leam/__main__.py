"""``captum-leam`` and ``python -m captum_leam``: the command line, or the command that installs it."""

import sys

from captum_leam._optional import EXTRAS, missing_extra

WRONG_INPUT = 2


def main() -> None:
    """Run the command line; without its extras, print the command that installs them and exit with status 2."""
    try:
        from captum_leam.cli import main as run
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        sys.stderr.write(f"error: {missing_extra(package, error)}\n")
        raise SystemExit(WRONG_INPUT) from None
    run()


if __name__ == "__main__":
    main()

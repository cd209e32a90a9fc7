"""``llem``: the command line."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command and exit with its code; errors of ours are told in one message."""
    from llenergymeasure.cli.app import app
    from llenergymeasure.errors import LlemError

    try:
        app()
    except LlemError as error:
        print(f"llem: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    sys.exit(0)

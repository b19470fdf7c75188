"""`blockcopy`: the console entry. Bad input is one line on stderr and exit code 2; Ctrl-C is 130."""

from __future__ import annotations

import sys

from blockcopy.extras import check_extras
from sparseblock import SparseBlockError

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line `arguments` (those of the process if None) and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        check_extras()
        from blockcopy.commands import UsageError, app
    except SparseBlockError as error:
        _fail(str(error), BAD_INPUT)
    try:
        code = app(arguments or ["--help"], prog_name="blockcopy", standalone_mode=False)
    except UsageError as error:
        _fail(error.format_message(), BAD_INPUT)
    except SparseBlockError as error:
        _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    sys.exit(code)


def _fail(message: str, code: int) -> None:
    print("blockcopy:", " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

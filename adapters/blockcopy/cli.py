"""`blockcopy`: the console entry. Bad input is one line on stderr and exit code 2; Ctrl-C is 130."""

from __future__ import annotations

import signal
import sys

from blockcopy.interrupt import interrupt_once

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line `arguments` (those of the process if None) and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or another's
            signal.signal(signal.SIGINT, interrupt_once)
        code = _run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer makes it of a KeyboardInterrupt, and says nothing
        _fail("interrupted", INTERRUPTED)
    sys.exit(code)


def _run(arguments: list[str]) -> int | None:
    # Imported here, where Ctrl-C is caught: torch takes seconds.
    from blockcopy.extras import check_extras
    from sparseblock import SparseBlockError

    try:
        check_extras()
        from blockcopy.commands import UsageError, app
    except SparseBlockError as error:
        _fail(str(error), BAD_INPUT)
    try:
        return app(arguments or ["--help"], prog_name="blockcopy", standalone_mode=False)
    except UsageError as error:
        _fail(error.format_message(), BAD_INPUT)
    except SparseBlockError as error:
        _fail(str(error), BAD_INPUT)


def _fail(message: str, code: int) -> None:
    print("blockcopy:", " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""The command line: verbs, and nothing else. What they do lives in the rooms below."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

from darklens.cli.console import fail, say
from darklens.cli.parser import make_parser
from darklens.cli.verbs import VERBS
from darklens.errors import DarklensError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; errors that a user can mend end in one line and exit status 2."""
    parsed = make_parser().parse_args(arguments, defaults=False)
    if parsed.get("version"):
        from darklens import __version__

        say(f"darklens {__version__}")
        return
    verb = parsed.get("subcommand")
    if verb is None:
        make_parser().print_help()
        return
    given = parsed[verb].as_flat().__dict__ if verb in parsed else {}
    try:
        VERBS[verb](**given)
    except DarklensError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        fail(f"{error.filename or 'writing'}: {error.strerror}")
    except KeyboardInterrupt:
        again = ["--resume"] if verb == "train" and "--resume" not in sys.argv else []
        fail(f"interrupted; to go on: {' '.join(['darklens', *sys.argv[1:], *again])}", status=130)

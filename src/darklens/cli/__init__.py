"""The command line: verbs, and nothing else. What they do lives in the packages below."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from inspect import signature

from darklens.cli.console import fail, say
from darklens.cli.interrupted import how_to_resume, kept
from darklens.cli.parser import arguments_of, make_parser, open_options, options_help, plain_arguments
from darklens.cli.verbs import VERBS
from darklens.commands import given_command
from darklens.errors import DarklensError
from darklens.usercode import named_failures

CLOSED_PIPE = 141
"""Exit status of a program whose reader went away, as shells count it: 128 + SIGPIPE."""

LISTS = ("--metrics", "--recipes", "--bands")
"""Options with several values; of any other option that is given twice, the last counts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; errors that a user can act on end in one line and exit status 2."""
    before = given_command.set(None)
    try:
        _main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE) from None
    finally:
        given_command.reset(before)


def _main(arguments: Sequence[str]) -> None:
    if "" in arguments:
        fail("an argument is empty: a path or a value is missing")
    try:
        plain = ["--help" if word == "-h" else word for word in plain_arguments(arguments)]
        named = [word.partition("=")[0] for word in plain]
        if (
            {"train", "adapt"} & set(plain)
            and "--resume=true" in plain
            and not {"--data", "--out", "--help"} & set(named)
        ):
            fail(how_to_resume(plain))
        if twice := [name for name in LISTS if named.count(name) > 1]:
            fail(f"{twice[0]} is given {named.count(twice[0])} times; say it once, with commas between the values")
        rest, opened = open_options(plain)
        parsed = make_parser().parse_args(rest, defaults=False)
    except SystemExit as stop:
        verb = next((word for word in plain if word in VERBS), "")
        if not stop.code and "--help" in plain and verb and _is_open(verb):
            say(f"\n{options_help(plain)}")
        raise
    except DarklensError as error:
        fail(str(error))
    if parsed.get("version"):
        from darklens import __version__

        say(f"darklens {__version__}")
        return
    verb = parsed.get("subcommand")
    if verb is None:
        make_parser().print_help()
        return
    line = shlex.join(["darklens", *arguments])
    given_command.set(line)
    given = parsed[verb].as_flat().__dict__ if verb in parsed else {}
    if opened and not _is_open(verb):
        fail(f"{verb} has no option --{min(opened)}")
    given |= opened
    if not 0 <= given.get("seed", 0) < 2**32:
        fail(f"--seed is a whole number from 0 to {2**32 - 1}; got {given['seed']}")
    try:
        with named_failures():
            VERBS[verb](**arguments_of(VERBS[verb], given))
    except DarklensError as error:
        fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        fail(f"{error.filename or 'reading or writing'}: {error.strerror or error}")
    except KeyboardInterrupt:
        fail(kept(verb, given, line), status=130)


def _is_open(verb: str) -> bool:
    """Whether a verb takes the options of networks and tasks."""
    return "overrides" in signature(VERBS[verb]).parameters

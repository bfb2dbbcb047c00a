"""The exit of every command: a mistake of the user is one sentence on stderr."""

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click

from eyeline.errors import EyelineError


class Group(click.Group):
    """A mistake of the user ends with one sentence and exit code 1, Ctrl-C with 130, --help with 0."""

    words: Sequence[str] = ()  # of the command line

    def main(self, args: Sequence[str] | None = None, *others: Any, **kwargs: Any) -> Any:
        self.words = tuple(sys.argv[1:] if args is None else args)
        for library in ("TRANSFORMERS", "HF_HUB"):  # their notices are for programmers
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
        try:
            sys.exit(super().main(args, *others, **{**kwargs, "standalone_mode": False}) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(1)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f" (see '{context.command_path} --help')" if context else ""
            fail(error.format_message().rstrip(".") + hint)
        except EyelineError as error:
            fail(str(error))
        except (KeyboardInterrupt, click.Abort):
            click.echo("Stopped.", err=True)
            sys.exit(130)
        except BrokenPipeError:  # the reader of our output has gone
            _drop_stdout()
            sys.exit(1)
        except OSError as error:
            _drop_stdout()
            what = f"{str(error.filename)!r}" if error.filename else "A file or the output"
            reason = error.strerror or type(error).__name__
            fail(f"{what} cannot be read or written ({reason}); check its path, its rights and the disk.")


def command_line() -> str:
    """The command that is on, to be typed again."""
    root = click.get_current_context().find_root()
    words = root.command.words if isinstance(root.command, Group) else ()
    return shlex.join([root.info_name or "eyeline", *words])


def _drop_stdout() -> None:
    """Sends what is left of the output nowhere, so that Python does not complain about it on its way out."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(sentence: str) -> None:
    click.echo(f"Error: {sentence.rstrip('.')}.", err=True)
    sys.exit(1)

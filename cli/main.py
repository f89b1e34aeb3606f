"""The command line: lists the files of cli/commands, imports the one that is asked for, and turns errors into lines.

The first line of a command file's docstring is its line in `convkit --help`; nothing is imported to show it.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn, cast

import click

from convkit import __version__
from convkit.cli import interrupt, options, show
from convkit.cli.step import COMMANDS, CONTEXT
from convkit.compress import parts
from convkit.compress.errors import INTERRUPTED, WRONG_INPUT, ConvkitError

BUG, PIPE_CLOSED = 70, 141
"""Exit codes of sysexits.h and of a shell's SIGPIPE: a bug is never taken for a failed verdict (1)."""


class Commands(click.Group):
    """`convkit`: a group whose commands are the files of cli/commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[options.COMMAND_LINE] = list(args)
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return parts.names(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in parts.names(COMMANDS) and ctx.resilient_parsing:
            return None
        return cast("click.Command", parts.load(COMMANDS, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, parts.about(COMMANDS, name)) for name in parts.names(COMMANDS)])

    def invoke(self, ctx: click.Context) -> object:
        try:
            interrupt.check()
            result = super().invoke(ctx)
            interrupt.check()
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as left:
            # rich leaves by itself when nobody reads on; Python must not complain about it when it closes stdout.
            if not any(isinstance(error, BrokenPipeError) for error in (left, left.__context__)):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(PIPE_CLOSED)
        return result


CLI = Commands(
    name="convkit",
    help="""Trained conv net in; the smallest, fastest network that is still as good out, with the proof.

    \b
    Examples:
      convkit doctor
      convkit inspect net.onnx
      convkit quantize net.onnx --data calib.npz --target onnxruntime-cpu -o out/
      convkit run lite0 -o out/lite0
    """,
    epilog="Exit codes: 0 good, 1 a verdict failed, 2 wrong input, 3 not available here, 130 interrupted.",
    context_settings=CONTEXT,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, _, asked: _version(ctx) if asked and not ctx.resilient_parsing else None,
            help="Show the version and exit.",
        )
    ],
)


def _version(ctx: click.Context) -> NoReturn:
    show.text(f"convkit {__version__}")
    ctx.exit()


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    interrupt.install()
    if "" not in sys.path:
        sys.path.append("")  # MODULE:FUNCTION may stand in the current folder; last, so that it hides nothing
    try:
        code = CLI.main(args, prog_name="convkit", standalone_mode=False)
    except click.UsageError as error:
        show.error(_usage(error))
        code = WRONG_INPUT
    except click.ClickException as error:
        show.error(error.format_message())
        code = WRONG_INPUT
    except ConvkitError as error:
        show.error(error)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        goes_on = _is_resumed((args or sys.argv[1:])[:1])
        show.error(f"interrupted{', state saved; --resume goes on from there' if goes_on else ''}")
        code = INTERRUPTED
    except Exception:  # noqa: BLE001 - a bug keeps its traceback, and an exit code of its own
        show.bug()
        code = BUG
    sys.exit(code if isinstance(code, int) else 0)


def _is_resumed(words: list[str]) -> bool:
    """Whether the command that `words` begin with has --resume."""
    found = [cast("click.Command", parts.load(COMMANDS, word)) for word in words if word in parts.names(COMMANDS)]
    return any("--resume" in option.opts for command in found for option in command.params)


def _usage(error: click.UsageError) -> str:
    """click's sentences as one line of ours."""
    message = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    page = f"see '{error.ctx.command_path if error.ctx else 'convkit'} --help'"
    return message[:1].lower() + message[1:] + ("" if message.endswith("?") else f"; {page}")


if __name__ == "__main__":
    main()

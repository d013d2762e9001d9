"""The command line: thin, and quick to start. Each command loads what it needs when it runs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from podkiln import __version__
from podkiln.cli.options import variant_option
from podkiln.errors import PodkilnError, UsageError
from podkiln.options import (
    ConsoleOptions,
    EngineOptions,
    ImageOptions,
    NetworkOptions,
    OutputOptions,
    RuntimeOptions,
    SubstituteOptions,
    TransferOptions,
    WeightOptions,
    apply,
)
from podkiln.util import console, disk_space, masking
from podkiln.util.interrupts import error_of
from podkiln.util.quoting import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.options import Decorator

# Command: the module that holds it, and its line in --help. Imported only when it is called.
COMMANDS = {
    "variants": ("listing", "The variants there are: tier, models, size."),
    "models": ("listing", "The models there are: VRAM, size, licence, state of the lock."),
    "plan": ("plan", "What a build would hold and move; moves nothing."),
    "render": ("render", "Write Dockerfile, start.sh and the rest; or compare them with the golden ones."),
    "lint": ("render", "hadolint, shellcheck and our own rules over what is rendered."),
    "lock": ("lock", "Resolve every input and write the lock; or check it, without a network."),
    "comfyui": ("comfyui", "Describe another ComfyUI release: flags, folders, lock, and what it changes."),
    "verify": ("verify", "What a registry holds, against the lock; pulls nothing."),
    "doctor": ("kept", "What podkiln keeps on this machine: where, and how large it is."),
    "clean": ("kept", "Remove what podkiln keeps on this machine and can make again."),
    "inspect": ("inspect", "What a model is, what would serve it, and what it needs; fetches no weights."),
    "flags": ("flags", "What start.sh would choose for a card and a RAM, and why."),
    "schemas": ("lock", "Write the JSON Schemas that editors check variants and models with."),
}


BUILD_OPTIONS: list[Decorator] = [
    variant_option,
    *RuntimeOptions.options(),
    *ImageOptions.options(),
    *TransferOptions.options("mount_from", "copy_from", "spool", "jobs"),
    *OutputOptions.options("load", "out"),
    *SubstituteOptions.options(),
    *NetworkOptions.options(),
    *EngineOptions.options(),
    *WeightOptions.options(),
    *OutputOptions.options("report", "dry_run"),
    *ConsoleOptions.options(),
]


class Commands(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"podkiln.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; for a misspelt one, name the nearest."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            what = f"No such command {name!r}. {did_you_mean(name, COMMANDS)}".rstrip()
            raise UsageError(what, hint="`./build.py --help` shows what there is.")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@apply(BUILD_OPTIONS)
@click.version_option(__version__, prog_name="podkiln")
@click.pass_context
def cli(context: click.Context, /, variant: tuple[str, ...], **options: Any) -> None:
    """Build ComfyUI images for rented GPUs, from a description to a pushed and proven manifest.

    Without a command: build the variants named, and with --push push them. Ends with an OCI image layout in
    dist/VARIANT/image/.
    """
    console.configure(options["verbose"] if not options["quiet"] else -1)
    if context.invoked_subcommand is not None:
        _refuse_stray(context)
        return
    if not any(_given(context)):
        click.echo(context.get_help())
        return
    from podkiln.cli.build import build  # noqa: PLC0415 - `--help` must not wait for it

    build(variant, options)


def _refuse_stray(context: click.Context) -> None:
    """An option of the main job before a command would be dropped without a word."""
    for name in _given(context):
        if name not in {"verbose", "quiet"}:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} must come after {context.invoked_subcommand}.")


def _given(context: click.Context) -> Iterator[str]:
    """Yield the options that stand on the command line."""
    for name in context.params:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            yield name


def main(arguments: Sequence[str]) -> int:
    """Run the command line. Every expected failure becomes one sentence and its exit code, only here."""
    masking.forget()
    masking.learn(arguments, os.environ)
    try:
        code = _run(arguments)
    except BrokenPipeError:
        code = 0  # the reader of our output has closed it
    return _flushed(code)


def _flushed(code: int) -> int:
    """Write out what is left of our output; return the code with which to end."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, PodkilnError) as error:
        # Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, PodkilnError) and not code:
            console.failure(error)
            return error.exit_code
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        # Not cli.main(): that answers a closed pipe with an exit code of its own.
        with cli.make_context("./build.py", list(arguments)) as context:
            cli.invoke(context)
    except PodkilnError as error:
        console.failure(error)
        return error.exit_code
    except click.UsageError as error:
        called = f" {error.ctx.info_name}" if error.ctx and error.ctx.parent else ""
        hint = f"`./build.py{called} --help` shows what there is."
        console.failure(UsageError(error.format_message(), hint=hint))
        return UsageError.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt) as end:
        ended = error_of(end)
        console.failure(ended)
        return ended.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        failure = _failure(error)
        console.failure(failure)
        return failure.exit_code
    return 0


def _failure(error: OSError) -> PodkilnError:
    """Return what there is to say of a disk that is full, or of a file that may not be read."""
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if place and error.errno in disk_space.FULL:
        return disk_space.error(Path(place).absolute().parent)
    where = f"{error.filename}: " if error.filename else ""
    return PodkilnError(f"{where}{error.strerror or error}.")

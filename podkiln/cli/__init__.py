"""The command line: thin, and quick to start. Each command loads what it needs when it runs."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from podkiln import __version__, output
from podkiln.cli.options import BUILD_OPTIONS, apply
from podkiln.errors import InterruptedByUserError, PodkilnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Command: the module that holds it, and its line in --help. Imported only when it is called.
COMMANDS = {
    "variants": ("listing", "The variants there are: tier, models, size."),
    "models": ("listing", "The models there are: VRAM, size, licence, state of the lock."),
    "plan": ("planning", "What a build would hold and move; moves nothing."),
    "render": ("rendering", "Write Dockerfile, start.sh and the rest; or compare them with the golden ones."),
    "lint": ("rendering", "hadolint, shellcheck and our own rules over what is rendered."),
    "lock": ("locking", "Resolve every input and write the lock; or check it, without a network."),
    "flags": ("choosing", "What start.sh would choose for a card and a RAM, and why."),
    "schemas": ("locking", "Write the JSON Schemas that editors check variants and models with."),
}


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
def cli(context: click.Context, /, **options: Any) -> None:
    """Build ComfyUI images for rented GPUs, from a description to a pushed and proven manifest.

    Without a command: build the variants named, and with --push push them. Ends with an OCI image layout in
    dist/VARIANT/image/.
    """
    output.configure(options["verbose"] if not options["quiet"] else -1)
    if context.invoked_subcommand is not None:
        _refuse_stray(context)
        return
    if not options["variant"]:
        click.echo(context.get_help())
        return
    from podkiln.cli.building import build  # noqa: PLC0415 - `--help` must not wait for it

    build(options)


def _refuse_stray(context: click.Context) -> None:
    """An option of the main job before a command would be dropped without a word."""
    for name in context.params:
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in {"verbose", "quiet"}:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} stands before {context.invoked_subcommand}; write it behind.")


def main(arguments: Sequence[str]) -> int:
    """Run the command line. Every expected failure becomes one sentence and its exit code, only here."""
    try:
        cli.main(list(arguments), prog_name="./build.py", standalone_mode=False)
    except PodkilnError as error:
        output.failure(error)
        return error.exit_code
    except click.UsageError as error:
        output.failure(UsageError(error.format_message(), hint="`./build.py --help` shows what there is."))
        return UsageError.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.failure(InterruptedByUserError("Interrupted; nothing half-made was left behind."))
        return InterruptedByUserError.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more while it ends.
        sys.stderr.close()
        return 0
    return 0

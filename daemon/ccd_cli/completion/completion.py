"""`ccd completion`: the script by which a shell completes commands, options, models, profiles and keys."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ccd_cli.options import command

_VARIABLE = "_CCD_COMPLETE"


@command(
    "completion",
    'eval "$(ccd completion bash)"                      # in ~/.bashrc',
    'eval "$(ccd completion zsh)"                       # in ~/.zshrc',
    "ccd completion fish > ~/.config/fish/completions/ccd.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes ccd's commands in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "ccd", _VARIABLE).source())

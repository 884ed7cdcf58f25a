"""`ccd ctl keys rotate`."""

from __future__ import annotations

from pathlib import Path

import click

from ccd_cli.completion import words
from ccd_cli.ctl.keys.file import failing, file_option, named, path_of, say_once, show_token
from ccd_cli.options import command, json_option
from ccd_gateway.access import keyfile


@command("rotate", "ccd ctl keys rotate laptop")
@click.argument("name", shell_complete=words.keys)
@file_option
@json_option
def rotate(name: str, keys_file: Path | None, as_json: bool) -> None:
    """Give a key another secret; the old one is useless at once, limits and usage stay."""
    with failing(), keyfile.changing(path_of(keys_file)) as keys:
        key, token = keyfile.renewed(named(keys, name))
        keys[key.id] = key
        show_token(key, token, as_json)
    say_once(key, as_json)

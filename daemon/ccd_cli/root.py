"""The `ccd` command: its groups and commands. Each stands in the room named as the word that is typed before it."""

from __future__ import annotations

import click

from ccd_cli.ask.ask import ask
from ccd_cli.ask.chat import chat
from ccd_cli.ask.models import models
from ccd_cli.batch.batch import batch
from ccd_cli.cli.cli import cli
from ccd_cli.cli.run import login, logout
from ccd_cli.completion.completion import completion
from ccd_cli.config.config import config
from ccd_cli.ctl.ctl import ctl
from ccd_cli.doctor.bugreport import bugreport
from ccd_cli.doctor.doctor import doctor
from ccd_cli.options import group
from ccd_cli.serve.daemon import daemon
from ccd_cli.serve.gateway import gateway
from ccd_cli.serve.up import up
from ccd_cli.serve.worker import worker
from ccd_cli.service.service import service
from ccd_cli.task.task import task


@group(
    "ccd",
    "ccd up                          # daemon and gateway; then, in another terminal:",
    'ccd ask "Why is the sky blue?"',
    "ccd ctl status",
)
@click.version_option(package_name="ccdaemon", prog_name="ccd")
def main() -> None:
    """Claude Code as a host service: a warm pool of CLI processes behind a Unix socket and an OpenAI gateway."""


for _command in (up, daemon, gateway, worker, ask, chat, models, login, logout, task, batch):
    main.add_command(_command)
for _command in (ctl, cli, service, config, doctor, bugreport, completion):
    main.add_command(_command)

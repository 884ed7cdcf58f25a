"""`ccd doctor`: looks at everything that a request needs, and says how to mend what is wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping

import click

from ccd_cli.doctor import finding, host, parts
from ccd_cli.doctor.finding import Finding
from ccd_cli.doctor.round_trip import round_trip
from ccd_cli.options import command, json_option
from ccd_daemon import config
from ccd_daemon.claude import binary
from ccd_gateway.settings import load_settings
from ccd_settings.settings import SettingsError


@command(
    "doctor",
    "ccd doctor",
    "sudo -u ccd -H ccd doctor --no-round-trip     # as the service's user",
    "ccd doctor --json | jq '.findings[] | select(.level != \"ok\")'",
)
@click.option("--no-round-trip", is_flag=True, help="Leave out the question that is asked on loopback.")
@json_option
def doctor(no_round_trip: bool, as_json: bool) -> None:
    """Look at settings, login, limits and running parts; each finding says how to mend it.

    Exit status: 0 when nothing keeps ccd from working, 1 otherwise.
    """
    findings = []
    for found in check(os.environ, with_round_trip=not no_round_trip):
        findings.append(found)
        if not as_json:
            click.echo("\n".join(finding.lines([found])))
    report = finding.as_json(findings)
    click.echo(json.dumps(report) if as_json else finding.summary(findings))
    sys.exit(0 if report["healthy"] else 1)


def check(environ: Mapping[str, str], *, with_round_trip: bool) -> Iterator[Finding]:
    """Every check, one after the other. Returns findings as they are made."""
    try:
        settings = config.read(environ)
        http_settings = load_settings(environ, {})
    except SettingsError as error:
        yield Finding("settings", "fault", str(error), "ccd config check")
        return
    yield from parts.settings_file(settings)
    yield from parts.files(settings, http_settings, environ)
    yield from parts.cli(settings, environ)
    yield from parts.login(settings, environ)
    for look in (host.limits, host.memory_left, host.disk, host.clock, host.control_groups, host.sandbox):
        yield from look(settings)
    yield from parts.daemon(settings)
    yield from parts.gateway(http_settings)
    if with_round_trip:
        try:
            command = binary.find(settings.cli.command, settings.data_dir, environ.get("PATH", os.defpath))
        except binary.CliError:
            command = None
        if command is not None:
            yield from round_trip(command, environ)

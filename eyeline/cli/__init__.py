"""The command line: parse, one library call, print. Events go to stdout, progress and errors to stderr."""

import click

import eyeline
from eyeline.cli import (
    calibrating,
    drawing,
    estimators,
    filtering,
    fitting,
    live,
    machine,
    public,
    saved,
    service,
    tracing,
)
from eyeline.cli.group import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eyeline.__version__)
def main() -> None:
    """See which parts of an image a thinking model relies on, live, while it thinks."""


for command in (
    live.stream, live.attribute, live.demo, saved.report, saved.joint, saved.rests_on, saved.rethink,
    saved.evidence, saved.picture, saved.verify, saved.contrast,
    drawing.scenes, public.data, filtering.filter_data,
    fitting.collect, fitting.fit, fitting.evaluate, calibrating.calibrate, calibrating.fit_general,
    tracing.collect_through, tracing.fit_through, tracing.evaluate_through, service.serve, service.follow,
    estimators.estimators,
    machine.doctor, machine.models,
):  # fmt: skip
    main.add_command(command)

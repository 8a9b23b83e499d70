"""``captum-leam study``: the command, and what its exit codes mean. Nothing heavy is imported until it runs."""

from pathlib import Path
from typing import Annotated

import typer

from captum_leam._progress import is_shown
from captum_leam._text import for_terminal

SOMETHING_LEFT_OUT = 1


def study(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="YAML: people, models, and what to measure; see docs/studies.md.")],
    out: Annotated[
        str | None,
        typer.Option(help="Folder of results, or its URL in a store, instead of the one in the configuration."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Workers of the engines processes and ray.")] = 1,
    engine: Annotated[
        str | None, typer.Option(help="serial, processes or ray; by default processes where --jobs is 2 or more.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compute nothing new: are the results whole, and does the study give them again?"),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Run one shard in a temporary folder, print stages, passes, bytes, time and memory of all; write nothing else.",
        ),
    ] = False,
    recompute: Annotated[int, typer.Option(help="With --check: shards that are made anew and compared.")] = 1,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html, too.")] = True,
    progress: Annotated[
        bool | None,
        typer.Option("--progress/--no-progress", help="Show progress bars. Default: where stderr is a terminal."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files.")] = False,
) -> None:
    """Explain many people with several networks: tables, report and manifest in one folder. Run again, it goes on where it stopped.

    Exit code 0: all was done. 1: done, but something was left out (tables/skipped.parquet says what and why), or not finished (run
    again). 2: wrong input, nothing was done.
    """
    from dataclasses import replace

    from rich.console import Console

    from captum_leam._stores import as_path
    from captum_leam.errors import IncompleteError
    from captum_leam.study.config import read_config
    from captum_leam.study.study import Study
    from captum_leam.study.worker import keep_freed_memory

    shown = is_shown(progress)
    settings = read_config(config)
    if out is not None:
        settings = replace(settings, out=as_path(out, Path.cwd()))
    made, console = Study(settings), Console(soft_wrap=True)
    if check:
        found = made.check(recompute=recompute, progress=shown)
        console.print(for_terminal(repr(found)))
        raise typer.Exit(0 if found.passed else SOMETHING_LEFT_OUT)
    chosen = engine or ("processes" if jobs > 1 else "serial")
    if plan:
        console.print(for_terminal(repr(made.plan(engine=chosen, jobs=jobs, progress=shown))))  # type: ignore[arg-type]
        return
    try:
        keep_freed_memory()
        result = made.run(engine=chosen, jobs=jobs, progress=shown, force=force, report=report)  # type: ignore[arg-type]
    except IncompleteError as error:
        if context.find_root().params.get("debug"):
            raise
        Console(stderr=True, soft_wrap=True).print(f"[bold red]not finished:[/] {for_terminal(error)}")
        raise typer.Exit(SOMETHING_LEFT_OUT) from None
    console.print(for_terminal(repr(result)))
    console.print(f"tables: {for_terminal(settings.out / 'tables')}")
    if report:
        console.print(f"page: {for_terminal(settings.out / 'report.html')}")
    if not result.complete:
        raise typer.Exit(SOMETHING_LEFT_OUT)

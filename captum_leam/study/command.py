"""Command ``captum-leam study`` with its exit codes. Heavy modules are imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from captum_leam._progress import is_shown
from captum_leam._text import for_terminal

INCOMPLETE = 1


def study(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(help="YAML: people, models, and what to measure; see docs/reference/study_configuration.md."),
    ],
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
        typer.Option(
            "--check",
            help="Compare the results with the manifest and with shards that are computed again; write nothing.",
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Run one shard in a temporary folder, print stages, passes, bytes, time and memory of all; write nothing else.",
        ),
    ] = False,
    recompute: Annotated[int, typer.Option(help="With --check: number of shards that are computed again.")] = 1,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html, too.")] = True,
    progress: Annotated[
        bool | None,
        typer.Option("--progress/--no-progress", help="Show progress bars. Default: where stderr is a terminal."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files.")] = False,
) -> None:
    """Explain many people with several networks, and write tables, report and manifest into one folder. A second run resumes the first.

    Exit code 0: complete. 1: some images or people were skipped (tables/skipped.parquet has the reasons), or the study is not finished
    (run it again). 2: wrong input, nothing was written.
    """
    from dataclasses import replace

    from rich.console import Console

    from captum_leam._stores import as_path
    from captum_leam.errors import IncompleteError
    from captum_leam.study.config import read_config
    from captum_leam.study.study import Study
    from captum_leam.study.worker import keep_freed_memory

    is_visible = is_shown(progress)
    settings = read_config(config)
    if out is not None:
        settings = replace(settings, out=as_path(out, Path.cwd()))
    this_study, console = Study(settings), Console(soft_wrap=True)
    if check:
        recheck = this_study.check(recompute=recompute, progress=is_visible)
        console.print(for_terminal(repr(recheck)))
        raise typer.Exit(0 if recheck.passed else INCOMPLETE)
    engine_name = engine or ("processes" if jobs > 1 else "serial")
    if plan:
        console.print(for_terminal(repr(this_study.plan(engine=engine_name, jobs=jobs, progress=is_visible))))  # type: ignore[arg-type]
        return
    try:
        keep_freed_memory()
        result = this_study.run(engine=engine_name, jobs=jobs, progress=is_visible, force=force, report=report)  # type: ignore[arg-type]
    except IncompleteError as error:
        if context.find_root().params.get("debug"):
            raise
        Console(stderr=True, soft_wrap=True).print(f"[bold red]not finished:[/] {for_terminal(error)}")
        raise typer.Exit(INCOMPLETE) from None
    console.print(for_terminal(repr(result)))
    console.print(f"tables: {for_terminal(settings.out / 'tables')}")
    if report:
        console.print(f"page: {for_terminal(settings.out / 'report.html')}")
    if not result.complete:
        raise typer.Exit(INCOMPLETE)

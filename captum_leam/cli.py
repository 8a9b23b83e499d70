"""Command line: ``captum-leam demo``, ``explain`` and ``study``. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_leam._text import for_terminal
from captum_leam._version import __version__
from captum_leam.errors import CaptumLeamError
from captum_leam.study.command import study

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation

app = typer.Typer(
    name="captum-leam",
    help="Which parts of this person's face does the model recognise, and is that explanation true?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(study)

WRONG_INPUT = 2
LEFT_OUT = 1

Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that holds files already.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress bars.")]


def main() -> None:
    """Entry point: a wrong input, too little memory, an extra that is not installed: one line in words and exit code 2, no traceback."""
    from rich.console import Console

    try:
        app()
    except (ValueError, TypeError, ImportError, OSError, MemoryError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {for_terminal(error)}")
        raise SystemExit(WRONG_INPUT) from None


def _version(show: bool) -> None:
    if show:
        typer.echo(f"captum-leam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


# -- demo ----------------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Out = Path("demo"),
    seed: Seed = 0,
    device: Device = "cpu",
    people: Annotated[int, typer.Option(help="Synthetic people to train on.")] = 12,
    progress: Progress = True,
    force: Force = False,
) -> None:
    """Train on synthetic faces whose identity is planted in one part, explain them, and write a page."""
    _check_folder(out, force)
    from captum_leam.reporting.explanation_page import write

    on = _device(device)
    sections = [_planted(part, people, seed, on, progress) for part in ("nose", "eyes", "mouth")]
    page = write(
        sections,
        out,
        title="captum-leam: maps where the right answer is known",
        lead="Three networks, each trained on synthetic faces whose identity lies in one part only. The maps should lie on that part.",
        settings={
            **_made_with(seed, device),
            "model": "captum_leam.synthetic.EmbeddingNet, trained here",
            "people": people,
        },
    )
    _show(sections, page)


def _planted(part: str, people: int, seed: int, device: Any, progress: bool) -> Explanation:
    from captum_leam.reporting.explanation import explain_images
    from captum_leam.suggest import suggest_layers
    from captum_leam.synthetic import SyntheticPopulation, centroids, swap_test, train

    population = SyntheticPopulation(people, evidence=part, seed=seed)
    model = train(population, seed=seed, progress=progress)
    test = swap_test(model, population, seed=seed)
    faces = population.sample(range(min(6, people)), seed=50_000 + seed)
    references = centroids(model, population, seed=seed)[faces.people]
    text = (
        f"The identity of {people} people lies in the {part}; all other parts are drawn anew for every image. On {test.images} fresh "
        f"images the network finds the right person in {test.accuracy:.0%}. That it uses the {part} is proved, not assumed: its decision "
        f"between two people flips in {test.part_flips:.0%} of the images when the {part} changes hands, and in {test.rest_flips:.0%} when "
        "everything else does."
    )
    layers = suggest_layers(model, faces.images)
    return explain_images(
        model.to(device),
        faces.images.to(device),
        [f"person {int(person)}" for person in faces.people],
        layers,
        faces.labels.to(device),
        faces.scheme.merge_sides(),
        references=references.to(device),
        seed=seed,
        title=f"Evidence planted in the {part}",
        text=text,
    )


# -- explain -------------------------------------------------------------------------------------------


@app.command()
def explain(
    probe: Annotated[
        Path, typer.Argument(help="The picture to explain: an aligned crop or a photograph; or a folder of them.")
    ],
    reference: Annotated[
        list[Path] | None, typer.Argument(help="Others of the same person; or one, of anyone, to compare with.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="FILE.onnx, or FILE.py:callable or package.module:callable (runs that code).")
    ] = "",
    preprocessing: Annotated[
        str | None,
        typer.Option(help="Pixels that the network wants: insightface, imagenet, unit (RGB in [0, 1]) or bytes."),
    ] = None,
    colour: Annotated[
        str | None, typer.Option(help="Order of the channels that the network wants: rgb or bgr.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Layer, or value of an ONNX file, that is the embedding, if the model goes on after it."),
    ] = None,
    pictures: Annotated[
        str, typer.Option(help="crops, photos, or auto: pictures of at most 256 px a side are crops.")
    ] = "auto",
    size: Annotated[
        str | None,
        typer.Option(help="Of the crops: 160, or HEIGHTxWIDTH as in 112x96. By default what the model takes."),
    ] = None,
    face: Annotated[
        list[int] | None,
        typer.Option(help="Which face of a photograph, 0 the largest (the default); once for all, or once for each."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Of the face detector: file or folder; else CAPTUM_LEAM_WEIGHTS, or facexlib's.")
    ] = None,
    regions: Annotated[
        str,
        typer.Option(
            help="template, bisenet, parsenet, superpixels, FILE.py:callable (a parser; runs that code), or a folder of label files."
        ),
    ] = "template",
    region_weights: Annotated[
        Path | None,
        typer.Option(help="Of bisenet or parsenet: file or folder; by default where --weights are, if a folder."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Of two pictures: a cosine at or over it is a match.")] = None,
    same_person: Annotated[
        bool | None,
        typer.Option("--same-person/--different-people", help="What is true of two pictures, where it is known."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer by name; repeat for several. Found by default.")
    ] = None,
    preset: Annotated[str, typer.Option(help="fast (one pass), default (path of 4 steps) or best (16).")] = "default",
    fraction: Annotated[float, typer.Option(help="Critical pixels: share of the crop.")] = 0.01,
    fill: Annotated[
        str, typer.Option(help="Of occluded pixels: blur, zero, mean, 'noisy linear' or shuffle.")
    ] = "blur",
    out: Out = Path("explanation"),
    seed: Seed = 0,
    device: Device = "cpu",
    progress: Progress = True,
    force: Force = False,
) -> None:
    """Explain faces, crops or photographs: maps, regions, an occlusion check, on a page with PNG and CSV beside it.

    Two pictures are a pair: score, decision, and what speaks for and against the match. More are of one person; bad files among
    them are left out and named, and the exit code is 1.
    """
    if not model:
        raise CaptumLeamError("--model is missing: FILE.onnx, FILE.py:callable or package.module:callable.")
    _check_folder(out, force)
    sides = _size(size)
    import warnings

    on = _device(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from captum_leam.reporting.explain_files import explain_files, lead

        found = explain_files(
            [probe, *(reference or [])],
            model,
            preprocessing=preprocessing,
            colour=colour,
            output=output,
            pictures=pictures,
            size=sides,
            faces=face or (),
            weights=weights,
            regions=regions,
            region_weights=region_weights,
            threshold=threshold,
            same_person=same_person,
            layers=layer,
            preset=preset,
            fraction=fraction,
            fill=fill,
            seed=seed,
            device=on,
            progress=progress,
        )
    found = _with_warnings(found, caught)
    from captum_leam.reporting.explanation_page import write

    title = f"LEAM: {found.title}"
    _show(
        [found],
        write([found], out, title=title, lead=lead(found), settings={**found.settings, **_made_with(seed, device)}),
    )
    if any(note.startswith("left out: ") for note in found.notes):
        raise typer.Exit(LEFT_OUT)


def _size(given: str | None) -> tuple[int, int] | None:
    """``"160"`` or ``"112x96"`` as (h, w)."""
    if given is None:
        return None
    parts = given.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise CaptumLeamError(f"--size is {given!r}; needed is one number over 0, or HEIGHTxWIDTH as in 112x96.")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[-1]


def _with_warnings(found: Explanation, caught: list[Any]) -> Explanation:
    """What this package warned of, once each, among the notes; deprecations within libraries are not the user's."""
    from dataclasses import replace

    own = [w for w in caught if issubclass(w.category, UserWarning) and "captum_leam" in str(w.filename)]
    said = dict.fromkeys(str(w.message) for w in own)
    return replace(found, notes=(*found.notes, *said))


# -- both ----------------------------------------------------------------------------------------------


def _check_folder(out: Path, force: bool) -> None:
    for folder in (out, *out.parents):
        if os.path.lexists(folder) and not folder.is_dir():
            raise CaptumLeamError(f"--out {out}: expected a folder, got the file {folder}.")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise CaptumLeamError(f"--out {out} holds files already; choose another folder, or --force to write into it.")
    there = next(folder for folder in (out, *out.parents) if folder.is_dir())
    try:
        with TemporaryDirectory(dir=there, prefix="."):
            pass
    except OSError as error:
        raise CaptumLeamError(
            f"--out {out}: Expected a folder that can be written to, got {there} ({error.strerror}). Choose another folder."
        ) from None


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CaptumLeamError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def _made_with(seed: int, device: str) -> dict[str, Any]:
    import captum
    import torch

    return {"seed": seed, "device": device, "torch": torch.__version__, "captum": captum.__version__}


def _show(sections: list[Explanation], page: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for section in sections:
        comparable = section.parts is None or section.parts.comparable or len(section.names) == 1
        lift = section.regions.groupby("region", sort=False)["lift"].mean().nlargest(4 if comparable else 0)
        drops = section.occlusion.summary().query("fraction == 0.05")
        table = Table(title=for_terminal(section.title), title_justify="left")
        for column in ("region", "lift", "drop at 5 %", "of"):
            table.add_column(column)
        names = [m or c for m, c in zip(drops["method"], drops["control"], strict=True)]
        rows = zip(lift.items(), [*zip(names, drops["drop"], strict=True), ("", float("nan"))], strict=False)
        for (region, value), (name, drop) in rows:
            table.add_row(for_terminal(region), f"{value:.1f}", f"{drop:.3f}" if name else "", for_terminal(name))
        console.print(table)
        console.print(for_terminal(section.label), soft_wrap=True)
        if section.pair is not None:
            console.print(for_terminal(section.pair.sentence()), soft_wrap=True)
        for note in section.notes:
            console.print(f"[yellow]note:[/] {for_terminal(note)}", soft_wrap=True)
    console.print(f"page: {for_terminal(page)}", soft_wrap=True)


if __name__ == "__main__":
    main()

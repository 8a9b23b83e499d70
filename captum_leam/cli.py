"""Command line ``captum-leam`` with commands ``demo``, ``explain`` and ``study``, and its exit codes; heavy modules are imported late."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_leam._progress import begin_step, end_bar, is_shown, plan, progress_bar
from captum_leam._text import for_terminal
from captum_leam._version import __version__
from captum_leam.errors import CaptumLeamError, MissingExtraError, next_command
from captum_leam.study.command import study

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation
    from captum_leam.synthetic import SyntheticPopulation

app = typer.Typer(
    name="captum-leam",
    help="Show which parts of a face a recognition model uses, and check whether the explanation is faithful.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(study)

DEBUG = "--debug"
WRONG_INPUT = 2
LEFT_OUT = 1
LIBRARIES = "loading libraries"
SENTENCES = 5
"""Largest number of faces whose result is printed; the page has all."""

Out = Annotated[Path, typer.Option(help="Folder for the page, pictures and tables.")]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that has files already.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Device = Annotated[str, typer.Option(help="Device of the networks: cpu, cuda, cuda:1, mps ...")]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show progress bars. Default: if stderr is a terminal."),
]


def main() -> None:
    """Run the command line; report user errors on one line and exit with status 2.

    Any other exception is a fault of the package and shows its traceback, as all exceptions do with ``--debug``.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(args=[*[DEBUG] * debug, *arguments])
    except Exception as error:
        if debug or not _is_user_error(error):
            raise
        from rich.console import Console

        end_of_line = _with_options(arguments, getattr(error, "options", ()))
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {for_terminal(f'{error} {end_of_line}'.rstrip())}"
        )
        raise SystemExit(WRONG_INPUT) from None


def _with_options(arguments: list[str], options: tuple[str, ...]) -> str:
    """Return the command with options that avoid an error instead of earlier values; an empty text without options.

    Example:
        >>> _with_options(["explain", "a b.png", "--face", "7"], ("--face", "0"))
        "Run: captum-leam explain 'a b.png' --face 0"
    """
    if not options:
        return ""
    name, others, remaining = options[0], [], iter(arguments)
    for argument in remaining:
        if argument == name and len(options) > 1:
            next(remaining, None)
        elif argument.partition("=")[0] != name:
            others.append(argument)
    return next_command(shlex.join(["captum-leam", *others, *options]))


def _is_user_error(error: Exception) -> bool:
    """Return whether an error is a wrong input, a missing extra, an unusable file, a full disk, or a lack of memory."""
    if isinstance(error, OSError):
        return error.filename is not None or error.errno == errno.ENOSPC
    if isinstance(error, RuntimeError):
        from captum_leam._engine.memory import is_out_of_memory

        return is_out_of_memory(error)
    return isinstance(error, CaptumLeamError | MissingExtraError | MemoryError)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"captum-leam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of each error; allowed at any place of the command.")
    ] = False,
) -> None:
    pass


# -- demo ----------------------------------------------------------------------------------------------

DEMO_LEAD = (
    "Three networks recognise synthetic faces by one part only: the nose, the eyes or the mouth. The map of each should lie on that part, "
    "the lift of the part should be above 1, and the drops should lie above those of Grad-CAM and random pixels."
)
NEXT = """
Next, your own network and pictures of one person: aligned crops, or photographs with the extra "face"

    captum-leam explain ann/*.jpg --model my_models.py:my_network --preprocessing insightface --out explanation

my_models.py has a function my_network() that returns a PyTorch module from images to embeddings; an ONNX file works as well."""


@app.command()
def demo(
    context: typer.Context,
    out: Out = Path("demo"),
    seed: Seed = 0,
    device: Device = "cpu",
    people: Annotated[int, typer.Option(help="Number of synthetic people. Networks are trained if it is not 12.")] = 12,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train the networks, a minute each, instead of loading those of the package."),
    ] = False,
    progress: Progress = None,
    force: Force = False,
) -> None:
    """Write a page of explanations whose right answer is known, for synthetic faces with their identity in one part."""
    _check_folder(out, force)
    _start_bar(context, progress)
    from captum_leam.reporting.explanation_page import write_page
    from captum_leam.synthetic import SyntheticPopulation, has_weights

    on, parts = _device(device), ("nose", "eyes", "mouth")
    populations = {part: SyntheticPopulation(people, evidence=part, seed=seed) for part in parts}
    trained = [part for part in parts if train or not has_weights(populations[part], seed)]
    plan({name: work for part in parts for name, work in _demo_steps(part, part in trained).items()})
    plan({"writing the page": 600})
    sections = [_planted(part, population, seed, on, part in trained) for part, population in populations.items()]
    page = write_page(
        sections,
        out,
        title="captum-leam: maps where the right answer is known",
        lead=DEMO_LEAD,
        settings={
            **_environment(seed, device),
            "model": f"captum_leam.synthetic.EmbeddingNet, {sections[0].source['weights']}",
            "people": people,
            **sections[0].settings,
        },
    )
    _show(sections, page)
    typer.echo(NEXT)


def _demo_steps(part: str, is_trained_here: bool) -> dict[str, float]:
    """Return the steps of one network with their work in steps of training."""
    return {f"training on the {part}": 500.0 * is_trained_here, f"testing and explaining the {part}": 150}


def _planted(part: str, population: SyntheticPopulation, seed: int, device: Any, is_trained_here: bool) -> Explanation:
    from captum_leam.reporting.explanation import ExplainOptions, explain_images
    from captum_leam.reporting.numbers import percent
    from captum_leam.suggest import suggest_layers
    from captum_leam.synthetic import centroids, load_trained, swap_test, train

    begin_step(f"training on the {part}", 500)
    model = train(population, seed=seed, progress=False) if is_trained_here else load_trained(population)
    begin_step(f"testing and explaining the {part}")
    test = swap_test(model, population, seed=seed)
    faces = population.sample(range(min(6, population.n_people)), seed=50_000 + seed)
    references = centroids(model, population, seed=seed)[faces.people]
    text = (
        f"The identity of {population.n_people} people lies in the {part}, and all other parts are drawn at random for each image. The "
        f"network recognises the person in {percent(test.accuracy)} of {test.images} new images. Its decision between two people changes "
        f"in {percent(test.part_flips)} of the images when the {part} is exchanged, and in {percent(test.rest_flips)} when everything "
        "else is, which proves that it uses that part."
    )
    layers = suggest_layers(model, faces.images)
    found = explain_images(
        model.to(device),
        faces.images.to(device),
        [f"person {int(person)}" for person in faces.people],
        layers,
        faces.labels.to(device),
        faces.scheme.merge_sides(),
        references=references.to(device),
        options=ExplainOptions(seed=seed, explored=2),
    )
    source = {"weights": "trained here" if is_trained_here else "weights of the package"}
    return replace(found, title=f"Evidence planted in the {part}", text=text, source={**found.source, **source})


# -- explain -------------------------------------------------------------------------------------------


@app.command()
def explain(  # noqa: PLR0913, PLR0917  an argument is an option of the command
    context: typer.Context,
    probe: Annotated[
        Path, typer.Argument(help="Picture to explain, an aligned crop or a photograph, or a folder of pictures.")
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Argument(help="Other pictures of the same person, or one picture of anyone to compare with."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model: FILE.onnx, FILE.py:callable or package.module:callable (runs code).")
    ] = "",
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="Values of the pixels that the network expects: insightface, imagenet, unit (RGB in [0, 1]) or bytes."
        ),
    ] = None,
    colour: Annotated[
        str | None, typer.Option(help="Order of the channels that the network expects: rgb or bgr.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Layer, or value of an ONNX file, with the embedding. Default: the output of the model."),
    ] = None,
    pictures: Annotated[
        str, typer.Option(help="Kind of the pictures: crops, photos, or auto (crops up to 256 px a side).")
    ] = "auto",
    size: Annotated[
        str | None, typer.Option(help="Crop size in pixels, e.g. 160 or 112x96. Default: the input size of the model.")
    ] = None,
    face: Annotated[
        list[int] | None,
        typer.Option(
            help="Index of the face in a photograph, 0 for the largest. Pass it once for all pictures or once for each. Default: 0."
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File or folder with the weights of the face detector. Default: CAPTUM_LEAM_WEIGHTS, or those of facexlib."
        ),
    ] = None,
    regions: Annotated[
        str,
        typer.Option(
            help="Source of the regions: template, bisenet, parsenet, superpixels, FILE.py:callable (runs code), or a folder of labels."
        ),
    ] = "template",
    region_weights: Annotated[
        Path | None,
        typer.Option(
            help="File or folder with the weights of bisenet or parsenet. Default: --weights, if it is a folder."
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="Gallery to find each probe in: a folder of pictures or of PERSON/ folders. Names are those of folders or files."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Threshold of the cosine from which two pictures match. Default: no decision.")
    ] = None,
    same_person: Annotated[
        bool | None,
        typer.Option("--same-person/--different-people", help="Whether two pictures show the same person, if known."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Name of a layer; may be repeated. Default: suggested layers.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Preset of the overall map: fast (2 forward and 2 backward passes), default (9 and 9) or best (49 and 49)."
        ),
    ] = "default",
    n_steps: Annotated[int, typer.Option(help="Steps of the path of the signed layer maps.")] = 4,
    fraction: Annotated[float, typer.Option(help="Share of the critical pixels, in (0, 1].")] = 0.01,
    fill: Annotated[
        str, typer.Option(help="Replacement of occluded pixels: blur, zero, mean, 'noisy linear' or shuffle.")
    ] = "blur",
    explored: Annotated[
        int, typer.Option(help="Number of faces to explore on the page, with measured curves; others are pictures.")
    ] = 6,
    certainty: Annotated[
        bool,
        typer.Option(
            "--certainty/--no-certainty", help="Measure the certainty of each map (about 200 passes per face)."
        ),
    ] = True,
    other_model: Annotated[
        list[str] | None,
        typer.Option(help="Another model to test the maps on, in the form of --model; may be repeated."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="File for a copy of explanation.json; - prints it to stdout, and nothing else."),
    ] = None,
    out: Out = Path("explanation"),
    seed: Seed = 0,
    device: Device = "cpu",
    progress: Progress = None,
    force: Force = False,
) -> None:
    """Write a page with maps, regions and an occlusion check of faces in crops or photographs, with PNG and CSV files beside it.

    Two pictures are a pair, with its score, its decision, and the evidence for and against the match. More pictures are those of one
    person; unusable files among them are left out and named, and the exit code is 1. With --gallery each picture is a probe, with its
    ranking, its margin, and the evidence for the first candidate against the next.
    """
    if not model:
        raise CaptumLeamError("--model is missing. Pass FILE.onnx, FILE.py:callable or package.module:callable.")
    _check_folder(out, force)
    is_visible = _start_bar(context, progress)
    sides, on = _size(size), _device(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from captum_leam.reporting.files import FileOptions, explain_files

        options = FileOptions(
            preset=preset,  # type: ignore[arg-type]  # any text of the user; the options check it
            n_steps=n_steps,
            fraction=fraction,
            fill=fill,
            explored=explored,
            seed=seed,
            progress=is_visible,
            preprocessing=preprocessing,
            colour=colour,
            output=output,
            pictures=pictures,
            size=sides,
            faces=face or (),
            weights=weights,
            regions=regions,
            region_weights=region_weights,
            gallery=gallery,
            threshold=threshold,
            same_person=same_person,
            layers=layer,
            device=on,
            certainty=certainty,
            other_models=other_model or (),
        )
        found = explain_files([probe, *(reference or [])], model, options)
    found = _with_warnings(found, caught)
    from captum_leam.reporting.explanation_page import write_page

    settings = {**found.settings, **_environment(seed, device)}
    page = write_page([found], out, title=f"LEAM: {found.title}", settings=settings)
    _show([found], page, to_stderr=json == Path("-"))
    if json is not None:
        _copy_result(page.with_name("explanation.json"), json)
    if found.skipped:
        raise typer.Exit(LEFT_OUT)


def _copy_result(result: Path, to: Path) -> None:
    """Write the machine-readable result to a file, or print it for ``-``."""
    if to == Path("-"):
        sys.stdout.buffer.write(result.read_bytes())
        sys.stdout.buffer.flush()
        return
    from captum_leam._storage import write_bytes

    write_bytes(to, result.read_bytes())


def _size(text: str | None) -> tuple[int, int] | None:
    """Return a size such as ``"160"`` or ``"112x96"`` as (h, w)."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise CaptumLeamError(f"Expected --size to be a number above 0, or HEIGHTxWIDTH as in 112x96, got {text!r}.")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[-1]


def _with_warnings(found: Explanation, caught: list[Any]) -> Explanation:
    """Return the explanation with each warning of this package as a note; deprecations inside libraries are left out."""
    own = [w for w in caught if issubclass(w.category, UserWarning) and "captum_leam" in str(w.filename)]
    messages = dict.fromkeys(str(w.message) for w in own)
    return replace(found, notes=(*found.notes, *messages))


# -- shared --------------------------------------------------------------------------------------------


def _start_bar(context: typer.Context, asked: bool | None) -> bool:
    """Start the progress bar of a command, and return whether it is shown."""
    is_visible = is_shown(asked)
    context.with_resource(progress_bar(is_visible))
    plan({LIBRARIES: 300})
    begin_step(LIBRARIES)
    return is_visible


def _check_folder(out: Path, force: bool) -> None:
    for folder in (out, *out.parents):
        if os.path.lexists(folder) and not folder.is_dir():
            raise CaptumLeamError(f"--out {out}: Expected a folder, got the file {folder}.")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise CaptumLeamError(
            f"--out {out} has files already. Choose another folder, or pass --force to write into it."
        ).with_options("--force")
    parent = next(folder for folder in (out, *out.parents) if folder.is_dir())
    try:
        with TemporaryDirectory(dir=parent, prefix="."):
            pass
    except OSError as error:
        raise CaptumLeamError(
            f"--out {out}: Expected a folder that can be written to, got {parent} ({error.strerror}). Choose another folder."
        ) from None


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device, dtype=torch.float32)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CaptumLeamError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}").with_options(
            "--device", "cpu"
        ) from None
    return device


def _environment(seed: int, device: str) -> dict[str, Any]:
    import captum
    import torch

    return {"seed": seed, "device": device, "torch": torch.__version__, "captum": captum.__version__}


def _show(sections: list[Explanation], page: Path, *, to_stderr: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    end_bar()
    console = Console(stderr=to_stderr)
    for section in sections:
        comparable = section.parts is None or section.parts.is_comparable or len(section.names) == 1
        lift = section.regions.groupby("region", sort=False)["lift"].mean().nlargest(4 if comparable else 0)
        drops = section.mean_drops.query("fraction == 0.05")
        table = Table(title=for_terminal(section.title), title_justify="left")
        for column in ("region", "lift (1: chance)", "drop at 5 %", "pixels named by"):
            table.add_column(column)
        names = [m or c for m, c in zip(drops["method"], drops["control"], strict=True)]
        rows = zip(lift.items(), [*zip(names, drops["drop"], strict=True), ("", float("nan"))], strict=False)
        for (region, value), (name, drop) in rows:
            table.add_row(for_terminal(region), f"{value:.1f}", f"{drop:.3f}" if name else "", for_terminal(name))
        console.print(table)
        console.print(for_terminal(section.label), soft_wrap=True)
        if section.pair is not None:
            console.print(for_terminal(section.pair.sentence()), soft_wrap=True)
        if section.match is not None:
            for i in range(min(SENTENCES, len(section.names))):
                console.print(for_terminal(section.match.sentence(i)), soft_wrap=True)
        if section.certainty is not None:
            for i, name in enumerate(section.names[:SENTENCES]):
                console.print(for_terminal(f"{name}: {section.certainty.sentence(i)}"), soft_wrap=True)
        for note in section.messages:
            console.print(f"[yellow]note:[/] {for_terminal(note)}", soft_wrap=True)
    console.print(f"page: {for_terminal(page)}", soft_wrap=True)


if __name__ == "__main__":
    main()

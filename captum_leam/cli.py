"""Command line: ``captum-leam demo``, ``explain`` and ``study``. Heavy modules are imported when a command runs."""

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
    help="Which parts of this person's face does the model recognise, and is that explanation true?",
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
"""Probes of a gallery whose result is printed; the page has all."""

Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that holds files already.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show progress bars. Default: where stderr is a terminal."),
]


def main() -> None:
    """Run the command line; report what the user can mend on one line and exit with status 2.

    Any other exception is a fault and shows its traceback, as every exception does with ``--debug``.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(args=[*[DEBUG] * debug, *arguments])
    except Exception as error:
        if debug or not _can_be_mended(error):
            raise
        from rich.console import Console

        end_of_line = _with_options(arguments, getattr(error, "options", ()))
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {for_terminal(f'{error} {end_of_line}'.rstrip())}"
        )
        raise SystemExit(WRONG_INPUT) from None


def _with_options(arguments: list[str], options: tuple[str, ...]) -> str:
    """Return the same command with options that work around an error, in place of earlier values; nothing without options.

    Example:
        >>> _with_options(["explain", "a b.png", "--face", "7"], ("--face", "0"))
        "Run: captum-leam explain 'a b.png' --face 0"
    """
    if not options:
        return ""
    name, kept, given = options[0], [], iter(arguments)
    for argument in given:
        if argument == name and len(options) > 1:
            next(given, None)
        elif argument.partition("=")[0] != name:
            kept.append(argument)
    return next_command(shlex.join(["captum-leam", *kept, *options]))


def _can_be_mended(error: Exception) -> bool:
    """Return whether an error is a refusal, a missing extra, an unusable file, a full disk, or a lack of memory."""
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
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of every error; may stand anywhere.")] = False,
) -> None:
    pass


# -- demo ----------------------------------------------------------------------------------------------

DEMO_LEAD = (
    "Look first at the overlays of each section: three networks recognise synthetic faces by one part only, the nose, the eyes or the "
    "mouth, and the map of each should lie on that part. Then at the lift of that part (1 is chance), and at the curve of drops, which "
    "should lie above those of Grad-CAM and random pixels."
)
NEXT = """
Next, your own network and pictures of one person: aligned crops, or photographs with the extra "face"

    captum-leam explain ann/*.jpg --model my_models.py:my_network --preprocessing insightface --out explanation

my_models.py holds a function my_network() that returns a PyTorch module, images in, embeddings out; an ONNX file works as well."""


@app.command()
def demo(
    context: typer.Context,
    out: Out = Path("demo"),
    seed: Seed = 0,
    device: Device = "cpu",
    people: Annotated[int, typer.Option(help="Synthetic people. Other than 12: networks are trained here.")] = 12,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train the networks here, a minute each, instead of using those of the package."),
    ] = False,
    progress: Progress = None,
    force: Force = False,
) -> None:
    """Explain networks whose evidence is known: synthetic faces with identity planted in one part; and write a page."""
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
    """Return the steps for one network, each with its work in steps of training."""
    return {f"training on the {part}": 500.0 * is_trained_here, f"testing and explaining the {part}": 150}


def _planted(part: str, population: SyntheticPopulation, seed: int, device: Any, is_trained_here: bool) -> Explanation:
    from captum_leam.reporting.explanation import ExplainOptions, explain_images
    from captum_leam.suggest import suggest_layers
    from captum_leam.synthetic import centroids, load_trained, swap_test, train

    begin_step(f"training on the {part}", 500)
    model = train(population, seed=seed, progress=False) if is_trained_here else load_trained(population)
    begin_step(f"testing and explaining the {part}")
    test = swap_test(model, population, seed=seed)
    faces = population.sample(range(min(6, population.n_people)), seed=50_000 + seed)
    references = centroids(model, population, seed=seed)[faces.people]
    text = (
        f"The identity of {population.n_people} people lies in the {part}; all other parts are drawn anew for every image. On "
        f"{test.images} fresh images the network finds the right person in {test.accuracy:.0%}. That it uses the {part} is proved, not "
        f"assumed: its decision between two people flips in {test.part_flips:.0%} of the images when the {part} changes hands, and in "
        f"{test.rest_flips:.0%} when everything else does."
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
        Path, typer.Argument(help="The picture to explain: an aligned crop or a photograph; or a folder of them.")
    ],
    reference: Annotated[
        list[Path] | None, typer.Argument(help="Others of the same person; or one, of anyone, to compare with.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="FILE.onnx, FILE.py:callable or package.module:callable (runs code).")
    ] = "",
    preprocessing: Annotated[
        str | None,
        typer.Option(help="Pixels that the network wants: insightface, imagenet, unit (RGB in [0, 1]) or bytes."),
    ] = None,
    colour: Annotated[
        str | None, typer.Option(help="Order of the channels that the network takes: rgb or bgr.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Layer, or value of an ONNX file, that is the embedding, if the model goes on after it."),
    ] = None,
    pictures: Annotated[str, typer.Option(help="crops, photos, or auto: up to 256 px a side are crops.")] = "auto",
    size: Annotated[str | None, typer.Option(help="Crop size, e.g. 160 or 112x96. Default: the model's.")] = None,
    face: Annotated[
        list[int] | None,
        typer.Option(help="Which face of a photograph, 0 the largest (the default); once for all, or once for each."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of the face detector, file or folder. Default: CAPTUM_LEAM_WEIGHTS, or facexlib's."),
    ] = None,
    regions: Annotated[
        str,
        typer.Option(
            help="template, bisenet, parsenet, superpixels, FILE.py:callable (a parser; runs that code), or a folder of label files."
        ),
    ] = "template",
    region_weights: Annotated[
        Path | None,
        typer.Option(help="Weights of bisenet or parsenet, file or folder. Default: --weights, if that is a folder."),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures, or of PERSON/ folders, to find each probe in; names are those of folders or files."
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Cosine from which two pictures are a match.")] = None,
    same_person: Annotated[
        bool | None,
        typer.Option("--same-person/--different-people", help="Truth about two pictures, if it is known."),
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layer by name; may be repeated. Found by default.")] = None,
    preset: Annotated[
        str, typer.Option(help="Overall map: fast (1 forward pass), default (10), best (50).")
    ] = "default",
    n_steps: Annotated[int, typer.Option(help="Steps of the path of the signed layer maps.")] = 4,
    fraction: Annotated[float, typer.Option(help="Critical pixels: share of the crop.")] = 0.01,
    fill: Annotated[str, typer.Option(help="Occluded pixels: blur, zero, mean, 'noisy linear' or shuffle.")] = "blur",
    explored: Annotated[
        int, typer.Option(help="Faces to explore on the page, with measured curves; the others are pictures.")
    ] = 6,
    certainty: Annotated[
        bool, typer.Option("--certainty/--no-certainty", help="Measure how sure each map is (about 200 passes a face).")
    ] = True,
    other_model: Annotated[
        list[str] | None,
        typer.Option(help="Another model, read as --model is, to test the maps on; may be repeated."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Copy of explanation.json; - prints it, and nothing else, to stdout.")
    ] = None,
    out: Out = Path("explanation"),
    seed: Seed = 0,
    device: Device = "cpu",
    progress: Progress = None,
    force: Force = False,
) -> None:
    """Explain faces in crops or photographs: maps, regions and an occlusion check, on a page with PNG and CSV files beside it.

    Two pictures are a pair: score, decision, and what speaks for and against the match. More are of one person; bad files among
    them are left out and named, and the exit code is 1. With --gallery every picture is a probe: ranks, margins, and what makes the
    first candidate win over the next.
    """
    if not model:
        raise CaptumLeamError("--model is missing: FILE.onnx, FILE.py:callable or package.module:callable.")
    _check_folder(out, force)
    shown = _start_bar(context, progress)
    sides, on = _size(size), _device(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from captum_leam.reporting.files import FileOptions, explain_files, lead

        options = FileOptions(
            preset=preset,  # type: ignore[arg-type]  # any text of the user; the options check it
            n_steps=n_steps,
            fraction=fraction,
            fill=fill,
            explored=explored,
            seed=seed,
            progress=shown,
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
    page = write_page([found], out, title=f"LEAM: {found.title}", lead=lead(found), settings=settings)
    _show([found], page, to_stderr=json == Path("-"))
    if json is not None:
        _copy_result(page.with_name("explanation.json"), json)
    if found.skipped:
        raise typer.Exit(LEFT_OUT)


def _copy_result(result: Path, to: Path) -> None:
    """Print the machine-readable result for ``-``, else write it to a file."""
    if to == Path("-"):
        sys.stdout.buffer.write(result.read_bytes())
        sys.stdout.buffer.flush()
        return
    from captum_leam._storage import write_bytes

    write_bytes(to, result.read_bytes())


def _size(given: str | None) -> tuple[int, int] | None:
    """Return ``"160"`` or ``"112x96"`` as (h, w)."""
    if given is None:
        return None
    parts = given.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise CaptumLeamError(f"--size is {given!r}; expected one number over 0, or HEIGHTxWIDTH as in 112x96.")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[-1]


def _with_warnings(found: Explanation, caught: list[Any]) -> Explanation:
    """Add each warning of this package to the notes, once; deprecations within libraries do not concern the user."""
    own = [w for w in caught if issubclass(w.category, UserWarning) and "captum_leam" in str(w.filename)]
    messages = dict.fromkeys(str(w.message) for w in own)
    return replace(found, notes=(*found.notes, *messages))


# -- both ----------------------------------------------------------------------------------------------


def _start_bar(context: typer.Context, asked: bool | None) -> bool:
    """Show the progress of the command until results are printed or the command ends; return whether it is shown."""
    shown = is_shown(asked)
    context.with_resource(progress_bar(shown))
    plan({LIBRARIES: 300})
    begin_step(LIBRARIES)
    return shown


def _check_folder(out: Path, force: bool) -> None:
    for folder in (out, *out.parents):
        if os.path.lexists(folder) and not folder.is_dir():
            raise CaptumLeamError(f"--out {out}: expected a folder, got the file {folder}.")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise CaptumLeamError(
            f"--out {out} holds files already; choose another folder, or --force to write into it."
        ).with_options("--force")
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
        comparable = section.parts is None or section.parts.comparable or len(section.names) == 1
        lift = section.regions.groupby("region", sort=False)["lift"].mean().nlargest(4 if comparable else 0)
        drops = section.mean_drops.query("fraction == 0.05")
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

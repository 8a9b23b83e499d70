"""Command line: ``captum-leam demo``, ``explain`` and ``study``. Nothing heavy is imported until a command runs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from captum_leam._version import __version__
from captum_leam.study.command import study

if TYPE_CHECKING:
    from torch import Tensor, nn

    from captum_leam.faces import FaceSource
    from captum_leam.report import Explanation
    from captum_leam.suggest import LayerSuggestions

app = typer.Typer(
    name="captum-leam",
    help="Which parts of this person's face does the model recognise, and is that explanation true?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(study)

WRONG_INPUT = 2

Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Force = Annotated[bool, typer.Option("--force", help="Write into a folder that holds files already.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress bars.")]


def main() -> None:
    """Entry point: a wrong input is one line in words and exit code 2, not a traceback."""
    from rich.console import Console

    try:
        app()
    except (ValueError, TypeError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_plain(error)}")
        raise SystemExit(WRONG_INPUT) from None


def _plain(value: object) -> str:
    from rich.markup import escape

    return escape(str(value))


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
    from captum_leam.report import write

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
    from captum_leam.report import explain_images
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
    probe: Annotated[Path, typer.Argument(help="The picture to explain: an aligned crop or a photograph.")],
    reference: Annotated[
        list[Path] | None, typer.Argument(help="Others of the same person; or one, of anyone, to compare with.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="FILE.onnx, or FILE.py:callable or package.module:callable (runs that code).")
    ] = "",
    preprocessing: Annotated[
        str | None, typer.Option(help="Pixels that the network wants: insightface, imagenet or unit (RGB in [0, 1]).")
    ] = None,
    pictures: Annotated[
        str, typer.Option(help="crops, photos, or auto: pictures of at most 256 px a side are crops.")
    ] = "auto",
    face: Annotated[int | None, typer.Option(help="Which face of a photograph, 0 the largest (the default).")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Of the face detector: file or folder; else CAPTUM_LEAM_WEIGHTS, or facexlib's.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Of two pictures: a cosine at or over it is a match.")] = None,
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

    Two pictures are a pair: score, decision, and what speaks for and against the match. More are of one person.
    """
    if not model:
        raise ValueError("--model is missing: FILE.onnx, FILE.py:callable or package.module:callable.")
    _check_folder(out, force)
    paths = _distinct([probe, *(reference or [])])
    from captum_leam.explain import PRESETS
    from captum_leam.models import load_model
    from captum_leam.regions import TemplateParser
    from captum_leam.report import OWN_REFERENCE, explain_images, references_from, write
    from captum_leam.suggest import chosen_layers

    if preset not in PRESETS:
        raise ValueError(f"--preset is {preset!r}; needed is one of {', '.join(PRESETS)}.")
    if threshold is not None and len(paths) != 2:
        raise ValueError(f"--threshold decides about two pictures; there are {len(paths)}.")
    on = _device(device)
    network = load_model(model, preprocessing).to(on)
    sources = _sources(paths, pictures, face, weights, network, device)
    images = _stacked(sources).to(on)
    _check_runs(network, images, model)
    layers = chosen_layers(network, images, layer)
    references = references_from(network, images)
    parser = TemplateParser()
    found = explain_images(
        network,
        images,
        _names(paths),
        layers,
        parser(images),
        parser.scheme.merge_sides(),
        references=references,
        preset=preset,
        fraction=fraction,
        fill=fill,
        seed=seed,
        progress=progress,
        title=f"{probe.name} and {len(paths) - 1} more" if len(paths) > 1 else probe.name,
    )
    found = _with_photographs(found, sources)
    if len(paths) == 2:
        found = _with_decision(found, network, layers, preset, threshold)
    asked = (
        f"{len(paths)} faces, each explained towards the others."
        if references is not None
        else f"One face; {OWN_REFERENCE}."
    )
    settings = {
        "model": model,
        "preprocessing": preprocessing or getattr(network, "preprocessing", "within the model"),
        "pictures": ", ".join("crop" if source.face is None else "photograph, aligned" for source in sources),
        **found.settings,
        **_made_with(seed, device),
        "regions": "TemplateParser, standard five-point crop",
    }
    _show([found], write([found], out, title=f"LEAM: {probe.name}", lead=asked, settings=settings))


def _check_runs(network: nn.Module, images: Tensor, model: str) -> None:
    from captum_leam.objectives import embed

    try:
        embed(network, images[:1])
    except (ValueError, TypeError):
        raise
    except Exception as error:
        height, width = images.shape[2:]
        raise ValueError(
            f"{model} raised {type(error).__name__} on a crop of {width} × {height} px: {str(error).splitlines()[0]} "
            "Does it take crops of another size, or of other values than RGB in [0, 1]?"
        ) from error


def _sources(
    paths: list[Path], pictures: str, face: int | None, weights: Path | None, network: nn.Module, device: str
) -> list[FaceSource]:
    from captum_leam.faces import FaceAligner, read_faces

    if pictures not in ("auto", "crops", "photos"):
        raise ValueError(f"--pictures is {pictures!r}; needed is auto, crops or photos.")
    size = getattr(getattr(network, "preprocessing", None), "size", None)
    return read_faces(
        paths,
        lambda: FaceAligner(size=size, weights=weights, device=device),
        pictures,  # type: ignore[arg-type]
        "largest" if face is None else face,
    )


def _stacked(sources: list[FaceSource]) -> Tensor:
    import torch

    first = sources[0]
    for source in sources[1:]:
        if source.crop.shape != first.crop.shape:
            (height, width), (h, w) = source.crop.shape[1:], first.crop.shape[1:]
            raise ValueError(
                f"{source.path}: {width} × {height} px, but {first.path} has {w} × {h}; needed are crops of one size, or photographs."
            )
    return torch.stack([source.crop for source in sources])


def _with_photographs(found: Explanation, sources: list[FaceSource]) -> Explanation:
    from dataclasses import replace

    from captum_leam.plots import overlay_on_photo

    drawn = [
        None if source.photo is None or source.face is None else overlay_on_photo(source.photo, source.face, overall)
        for source, overall in zip(sources, found.overall, strict=True)
    ]
    return replace(found, photographs=tuple(drawn)) if any(picture is not None for picture in drawn) else found


def _with_decision(
    found: Explanation, network: nn.Module, layers: LayerSuggestions, preset: Any, threshold: float | None
) -> Explanation:
    from dataclasses import replace

    from captum_leam.pairs import explain_pair

    pair = explain_pair(network, *found.images, layers=layers, threshold=threshold, preset=preset)
    title = " and ".join(found.names)
    return replace(
        found, title=title, text=pair.sentence(), against=pair.dissimilar, label="Reference: the other picture."
    )


def _distinct(paths: list[Path]) -> list[Path]:
    """The files without repetitions: a crop must not be among its own references. Another file of the same bytes is refused."""
    once = list({path.resolve(): path for path in reversed(paths)}.values())[::-1]
    contents = {path: path.read_bytes() for path in once if path.is_file()}
    twins = [(a, b) for a, b in combinations(contents, 2) if contents[a] == contents[b]]
    if twins:
        raise ValueError(f"{twins[0][0]} and {twins[0][1]} are the same picture: a reference must be another one.")
    return once


def _names(paths: list[Path]) -> list[str]:
    """File names, with the folder where one name stands for several files."""
    names = [path.name for path in paths]
    return [str(path) if names.count(path.name) > 1 else path.name for path in paths]


# -- both ----------------------------------------------------------------------------------------------


def _check_folder(out: Path, force: bool) -> None:
    for folder in (out, *out.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {out}: {folder} is a file; needed is a folder.")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ValueError(f"--out {out} holds files already; choose another folder, or --force to write into it.")


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
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
        lift = section.regions.groupby("region", sort=False)["lift"].mean().nlargest(4)
        drops = section.occlusion.summary().query("fraction == 0.05")
        table = Table(title=_plain(section.title), title_justify="left")
        for column in ("region", "lift", "drop at 5 %", ""):
            table.add_column(column)
        names = [m or c for m, c in zip(drops["method"], drops["control"], strict=True)]
        rows = zip(lift.items(), [*zip(names, drops["drop"], strict=True), ("", float("nan"))], strict=False)
        for (region, value), (name, drop) in rows:
            table.add_row(_plain(region), f"{value:.1f}", f"{drop:.3f}" if name else "", _plain(name))
        console.print(table)
        console.print(_plain(section.label))
    console.print(f"page: {_plain(page)}", soft_wrap=True)

"""Count the Python calls that one call makes inside captum_leam and captum.

``python tools/trace_call.py`` prints a table; ``--list leam`` prints the functions of one row in call order, indented by depth.

Every row is the whole expression that it names, on 2 images of 32 px and a toy network of 6 layers, constructors included. The first
time also probes the model, which later calls on the same model do not repeat: both are shown.

A *frame of ours* is a Python frame whose code lies in a file of captum_leam or captum; frames of torch, of the standard library and of
the network are not counted, nor do they count for the depth. Counted are

- calls: frames of ours that begin; a generator counts once, not each time it is resumed; functions of C are no frames;
- functions: distinct functions among them; *named* are those written with ``def``, *others* lambdas, comprehensions and generator
  expressions (of which Python 3.12 and later run most comprehensions without a frame of their own);
- files: distinct files of these functions;
- depth: the largest number of frames of ours on the stack at one time, the outermost counted as 1;
- switches: calls whose file is not the file of the call before.
"""

import argparse
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import captum
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import captum_leam
from captum_leam import LEAM, EmbeddingSimilarity, explain_faces

FOLDERS = [str(Path(str(package.__file__)).parent) for package in (captum_leam, captum)]


@dataclass(frozen=True)
class Call:
    """One call of a function of ours, at a depth of 1 or more."""

    code: CodeType
    depth: int

    @property
    def is_named(self) -> bool:
        """Whether the function was written with ``def``."""
        return not self.code.co_name.startswith("<")


@dataclass
class Trace:
    """The calls of ours between ``with`` and its end, in order."""

    calls: list[Call] = field(default_factory=list)
    stack: list[FrameType] = field(default_factory=list)
    generators: set[FrameType] = field(default_factory=set)

    def __enter__(self) -> "Trace":
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        self.generators.clear()

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return") or not is_ours(frame.f_code):
            return
        if event == "return":
            if frame in self.stack:
                self.stack.remove(frame)
            return
        self.stack.append(frame)
        if frame in self.generators:
            return
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            self.generators.add(frame)
        self.calls.append(Call(frame.f_code, len(self.stack)))

    def row(self) -> list[int]:
        """Return calls, functions, named ones, others, files, depth and switches."""
        functions = {call.code for call in self.calls}
        named = {call.code for call in self.calls if call.is_named}
        files = [call.code.co_filename for call in self.calls]
        switches = sum(a != b for a, b in pairwise(files))
        depth = max(call.depth for call in self.calls)
        return [len(self.calls), len(functions), len(named), len(functions - named), len(set(files)), depth, switches]


def is_ours(code: CodeType) -> bool:
    """Return whether code lies in a file of captum_leam or captum."""
    return code.co_filename.startswith(tuple(f"{folder}/" for folder in FOLDERS))


def toy() -> nn.Sequential:
    """Return a network of 6 layers in evaluation mode: embeddings of 8 numbers from images of 32 px."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, 1), nn.Softplus(), nn.Conv2d(8, 8, 3, 2, 1), nn.Softplus()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * 64, 8)).eval()


ROWS: dict[str, tuple[str, Callable[[nn.Sequential, Tensor, Tensor], object]]] = {
    "leam": (
        "LEAM(model, layer).attribute(x, reference=r)",
        lambda model, x, r: LEAM(model, model[3]).attribute(x, reference=r),
    ),
    "gradcam": (
        "LayerGradCam(EmbeddingSimilarity(model), layer).attribute(x, additional_forward_args=r)",
        lambda model, x, r: LayerGradCam(EmbeddingSimilarity(model), model[3]).attribute(x, additional_forward_args=r),
    ),
    "path": (
        "LEAM(model, layer).attribute(x, reference=r, n_steps=4)",
        lambda model, x, r: LEAM(model, model[3]).attribute(x, reference=r, n_steps=4),
    ),
    "fast": (
        'explain_faces(model, x, "fast", reference=r)',
        lambda model, x, r: explain_faces(model, x, "fast", reference=r),
    ),
    "default": (
        "explain_faces(model, x, reference=r)",
        lambda model, x, r: explain_faces(model, x, reference=r),
    ),
}


def traces(name: str) -> tuple[Trace, Trace]:
    """Return the first and the second call of a row on one model, what is imported or set up once left out."""
    run = ROWS[name][1]
    x, reference = torch.rand(2, 3, 32, 32), torch.randn(2, 8)
    run(toy(), x, reference)  # lazy imports; another model
    model, found = toy(), (Trace(), Trace())
    for trace in found:
        with trace:
            run(model, x, reference)
    return found


def print_table() -> None:
    """Print one line for the first and one for the second call of every row."""
    columns = ["calls", "functions", "named", "others", "files", "depth", "switches"]
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, captum {captum.__version__}")
    width = max(len(text) for text, _ in ROWS.values())
    print(f"{'':{width}}  {'time':6}" + "".join(f"{name:>10}" for name in columns))
    for name, (text, _) in ROWS.items():
        for time, trace in zip(("first", "second"), traces(name), strict=True):
            print(f"{text:{width}}  {time:6}" + "".join(f"{number:>10}" for number in trace.row()))


def print_list(name: str, is_first: bool) -> None:
    """Print the functions of one row in call order, indented by depth, with file and line."""
    for call in traces(name)[0 if is_first else 1].calls:
        folder = next(path for path in FOLDERS if call.code.co_filename.startswith(f"{path}/"))
        file = Path(call.code.co_filename).relative_to(Path(folder).parent)
        print(f"{'  ' * (call.depth - 1)}{call.code.co_qualname}  {file}:{call.code.co_firstlineno}")


def main() -> None:
    """Print the table, or one list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", choices=ROWS, help="print the functions of one row in call order")
    parser.add_argument("--first", action="store_true", help="with --list: of the first call, which probes the model")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.list:
        print_list(options.list, options.first)
    else:
        print_table()


if __name__ == "__main__":
    main()

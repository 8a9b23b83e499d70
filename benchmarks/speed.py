"""How much does LEAM cost beside what cannot be avoided? Every limit of speed and memory, as ratios within one process.

    python benchmarks/speed.py [--data ../shared/real] [--quick] [--device cpu] [--out results/speed] [--only NETWORK ...]
                               [--batch N] [--seconds S] [--profile] [--table docs/_data/speed.txt]

Networks: the first of the folder (research_data.py) with --data, torchvision's ResNet-50 and facexlib's ArcFace IR-SE50, both with random
weights; random images of 112 × 112 px, 32 in a batch (4 of the IR-SE50, which takes minutes for a path at 32; --batch sets all); seed 0.

*Bare* is PyTorch without hooks, parameters as they come (they require gradients): the forward pass, and ``autograd.grad`` of the
detached cosine to the layer, whose output a wrapper keeps; no map is made. *LayerGradCam* is Captum's, of the same score. What is
compared runs in turns, the order turned around every time, for --seconds a group (three turns at least, two of a path); a figure is
the median of the ratios of a turn, with the quartiles. Wall clock; the same ratio in processor time stands beside it, which other work
on the machine disturbs less. Peak memory: of PyTorch's allocator, above what is there before the call. Looks at the device: operations
for which the processor waits for a GPU (``.item()``, ``bool``, ``nonzero``), counted in a trace of the profiler; on a CPU they cost next to
nothing. Writes speed.csv. Not shown: several GPUs, half precision, compiled models (LEAM runs them eagerly).
"""

import argparse
import copy
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from captum.attr import LayerGradCam
from research_data import load_zoo
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from captum_leam import LEAM, overall_map
from captum_leam.maps import default_blur, path_midpoints, place_on_field

SIZE = (112, 112)
STARTING = "starting"
STEPS = 4
PEERS = {"pytorch-grad-cam": "pytorch_grad_cam", "torch-cam": "torchcam"}
Run = Callable[[], object]


# -- what is compared ----------------------------------------------------------------------------------


class Cosine(nn.Module):
    """The detached cosine to a reference, as a user of Captum would write it."""

    def __init__(self, model: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.model, self.reference = model, reference
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,)."""
        embeddings = self.model(x)
        return (embeddings * self.reference).sum(1) / embeddings.detach().norm(dim=1)


class Kept(nn.Module):
    """A layer that keeps its output: how to reach it without a hook."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.output = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        self.output = self.layer(x)
        return self.output


@dataclass
class Network:
    """A model, five of its layers from fine to coarse, images, and a reference."""

    name: str
    model: nn.Module
    names: Sequence[str]
    images: Tensor
    layers: list[nn.Module] = field(init=False)
    reference: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.layers = [self.model.get_submodule(name) for name in self.names]
        with torch.no_grad():
            self.reference = nn.functional.normalize(self.model(self.images[:1].flip(3)))[0]

    def bare(self, layers: slice) -> Callable[[Tensor], list[tuple[Tensor, Tensor]]]:
        """Images → gradients of the score at the layers and their outputs, on a copy of the model without hooks."""
        model, kept = copy.deepcopy(self.model), []
        for name in self.names[layers]:
            parent, _, leaf = name.rpartition(".")
            kept.append(Kept(model.get_submodule(name)))
            setattr(model.get_submodule(parent), leaf, kept[-1])
        score = Cosine(model, self.reference)

        def run(x: Tensor) -> list[tuple[Tensor, Tensor]]:
            total = score(x).sum()
            outputs = [k.output for k in kept]
            for k in kept:
                k.output = torch.empty(0)
            return list(zip(torch.autograd.grad(total, outputs), outputs, strict=True))

        return run

    def leam(self, layers: slice | int, **options: object) -> LEAM:
        """LEAM at one layer, or several."""
        return LEAM(self.model, self.layers[layers], **options)

    def grad_cam(self, layer: int) -> LayerGradCam:
        """Captum's, of the same score."""
        return LayerGradCam(Cosine(self.model, self.reference), self.layers[layer])


def networks(data: Path | None, batch: int | None, device: str) -> dict[str, Callable[[], Network]]:
    """Builders, so that one network is in memory at a time."""
    images = torch.rand(batch or 32, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(device)

    def residual() -> Network:
        from torchvision.models import resnet50

        layers = ("relu", "layer1", "layer2", "layer3", "layer4")
        return Network("ResNet-50", resnet50(num_classes=512).eval().to(device), layers, images)

    def squeezed() -> Network:
        from facexlib.recognition.arcface_arch import Backbone

        net = Backbone(50, 0.6, "ir_se")
        model = nn.Sequential(net.input_layer, net.body, net.output_layer).eval().to(device)
        return Network("IR-SE50", model, ("0", "1.2", "1.6", "1.20", "1.23"), images[: batch or 4])

    found = {"ResNet-50": residual}
    if find_spec("facexlib"):
        found["IR-SE50"] = squeezed
    else:
        print("IR-SE50 is left out: pip install facexlib")
    if data is None:
        print("MobileFaceNet is left out: name its folder with --data")
        return found
    name, make = next(iter(load_zoo(data).items()))
    layers = ("stem", "stages.0.4", "stages.2.0", "stages.2.5", "stages.4.1")
    return {
        f"MobileFaceNet {name}": lambda: Network(f"MobileFaceNet {name}", make().to(device), layers, images)
    } | found


# -- taking turns --------------------------------------------------------------------------------------


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Run, device: torch.device) -> tuple[float, float]:
    """Seconds of wall clock and of processor time."""
    synchronise(device)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    synchronise(device)
    return time.perf_counter() - wall, time.process_time() - processor


@dataclass(frozen=True)
class Effort:
    """How long a group takes turns, and how often at least."""

    seconds: float
    turns: int


def in_turns(contenders: dict[str, Run], effort: Effort, device: torch.device) -> pd.DataFrame:
    """A row per turn; columns (clock, contender)."""
    for run in contenders.values():
        run()  # warm up
    rows, started = [], time.perf_counter()
    while len(rows) < effort.turns or time.perf_counter() - started < effort.seconds:
        names = list(contenders) if len(rows) % 2 else list(contenders)[::-1]
        taken = {name: timed(contenders[name], device) for name in names}
        rows.append({(clock, n): t[i] for n, t in taken.items() for i, clock in enumerate(("wall", "processor"))})
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


@dataclass
class Report:
    """Lines with a figure and a limit."""

    lines: list[dict[str, object]] = field(default_factory=list)

    def add(self, network: str, what: str, figure: float, limit: str, **more: object) -> None:
        """A figure, printed beside its limit: "≤ 1.05", "≥ 2.00", or "" for none."""
        bound = float(limit.split()[1]) if limit else 0.0
        met = {"≤": bool(figure <= bound), "≥": bool(figure >= bound)}.get(limit[:1])
        self.lines.append({"network": network, "what": what, "figure": figure, "limit": limit, "met": met, **more})
        spread = f" [{more['low']:.3f}, {more['high']:.3f}], n {more['turns']}" if "low" in more else ""
        beside = f", processor time {more['processor']:.3f}" if "processor" in more else ""
        verdict = {True: "met", False: "MISSED", None: "no limit"}[met]
        print(f"{network:20} {what:62} {figure:9.3f}{spread}{beside}   {limit or '–'}   {verdict}", flush=True)

    def ratio(self, network: str, what: str, turns: pd.DataFrame, above: str, below: str, limit: str) -> None:
        """The median over the turns of the ratio of two contenders."""
        wall = turns["wall", above] / turns["wall", below]
        processor = turns["processor", above] / turns["processor", below]
        low, high = wall.quantile([0.25, 0.75])
        figures = {"low": low, "high": high, "turns": len(wall), "processor": processor.median()}
        self.add(network, what, wall.median(), limit, **figures)

    def table(self) -> str:
        """Markdown: a row per figure, a column per network; bold where the limit is missed."""
        lines = pd.DataFrame(self.lines)
        lines["said"] = [self._said(line) for line in self.lines]
        networks = [name for name in lines["network"].unique() if name != STARTING]
        rows = [["", "limit", *networks], ["---"] * (2 + len(networks))]
        for (what, limit), part in lines.groupby(["what", "limit"], sort=False):
            said = dict(zip(part["network"], part["said"], strict=True))
            rows.append(
                [
                    what,
                    limit,
                    *(said.get(name, said.get(STARTING, "") if name == networks[0] else "") for name in networks),
                ]
            )
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    @staticmethod
    def _said(line: dict[str, object]) -> str:
        said = f"{line['figure']:.3g}"
        said = f"**{said}**" if line["met"] is False else said
        return said + (f" [{line['low']:.2f}, {line['high']:.2f}]; {line['processor']:.2f}" if "low" in line else "")


# -- the limits ----------------------------------------------------------------------------------------


def one_layer(net: Network, report: Report, effort: Effort) -> None:
    x, device = net.images, net.images.device
    bare, leam, cam = net.bare(slice(1, 2)), net.leam(1), net.grad_cam(1)
    contenders: dict[str, Run] = {
        "bare": lambda: bare(x),
        "LEAM": lambda: leam.attribute(x, reference=net.reference),
        "LayerGradCam": lambda: cam.attribute(x),
    }
    check_same(net)
    turns = in_turns(contenders, effort, device)
    report.ratio(net.name, "one layer: LEAM / bare", turns, "LEAM", "bare", "≤ 1.05")
    report.ratio(net.name, "one layer: LEAM / LayerGradCam", turns, "LEAM", "LayerGradCam", "≤ 1.03")
    report.add(net.name, "one layer: LEAM, faces per second", len(x) / turns["wall", "LEAM"].median(), "")
    peaks = {name: peak_memory(run, device) / 2**20 for name, run in contenders.items()}
    report.add(net.name, "one layer: peak memory, LEAM / LayerGradCam", peaks["LEAM"] / peaks["LayerGradCam"], "≤ 1.00")
    report.add(net.name, "one layer: peak memory, LEAM / bare", peaks["LEAM"] / peaks["bare"], "")
    report.add(net.name, "one layer: peak memory of LEAM, MiB", peaks["LEAM"], "")


def five_layers(net: Network, report: Report, effort: Effort) -> None:
    x, cams = net.images, [net.grad_cam(i) for i in range(5)]
    five, earliest = net.leam(slice(None)), net.leam(0)
    contenders: dict[str, Run] = {
        "five": lambda: five.attribute(x, reference=net.reference),
        "earliest": lambda: earliest.attribute(x, reference=net.reference),
        "cams": lambda: [cam.attribute(x) for cam in cams],
    }
    turns = in_turns(contenders, effort, x.device)
    report.ratio(net.name, "five layers: one call / the earliest alone", turns, "five", "earliest", "≤ 1.10")
    report.ratio(net.name, "five layers: five LayerGradCam / one call", turns, "cams", "five", "≥ 3.00")


def path(net: Network, report: Report, effort: Effort) -> None:
    x, three = net.images, slice(0, 3)
    bare, leam, blurred = net.bare(three), net.leam(three), default_blur(net.images)

    def by_hand() -> None:
        with torch.no_grad():
            for images in (x, blurred):
                net.model(images)
        for t in path_midpoints(STEPS):
            bare(blurred + t * (x - blurred))

    def overall(**options: int) -> Tensor:
        return overall_map(leam.attribute(x, reference=net.reference, n_steps=STEPS, **options), SIZE)

    contenders: dict[str, Run] = {"bare": by_hand, "LEAM": overall}
    if x.is_cuda:  # a batch that fills the device gains nothing
        contenders["batched"] = lambda: overall(internal_batch_size=STEPS * len(x))
    turns = in_turns(contenders, Effort(effort.seconds, min(2, effort.turns)), x.device)
    what = f"overall map of three layers, path of {STEPS}"
    report.ratio(net.name, f"{what}: LEAM / bare", turns, "LEAM", "bare", "≤ 1.10")
    if x.is_cuda:
        report.ratio(net.name, f"{what}, all steps in one batch / bare", turns, "batched", "bare", "")
    report.add(net.name, f"{what}: faces per second", len(x) / turns["wall", "LEAM"].median(), "")


def peers(net: Network, report: Report, effort: Effort) -> None:
    """The same maps as by pytorch-grad-cam (HiResCAM, at image size) and torch-cam (LayerCAM, at the layer's)."""
    x, reference = net.images, net.reference

    def score(embedding: Tensor) -> Tensor:
        return embedding @ reference / embedding.detach().norm()

    # the second layer, and the last, which their users take
    for layer in (1, 4):
        elementwise, positive = net.leam(layer), net.leam(layer, weighting="positive")

        def placed(leam: LEAM = elementwise) -> Tensor:
            return stretched(place_on_field(leam.attribute(x, reference=reference, relu_attributions=True), SIZE))

        def at_layer(leam: LEAM = positive) -> Tensor:
            return stretched(leam.attribute(x, reference=reference, relu_attributions=True)[:, 0])

        contenders: dict[str, dict[str, Run]] = {}
        if find_spec("pytorch_grad_cam"):
            from pytorch_grad_cam import HiResCAM

            # a copy: it leaves hooks and gradients in the model
            model = copy.deepcopy(net.model)
            high = HiResCAM(model, [model.get_submodule(net.names[layer])])
            contenders["pytorch-grad-cam"] = {"peer": lambda high=high: high(x, [score] * len(x)), "LEAM": placed}
        if find_spec("torchcam"):
            from torchcam.methods import LayerCAM

            model = copy.deepcopy(net.model)
            cam = LayerCAM(model, net.names[layer])
            contenders["torch-cam"] = {
                "peer": lambda cam=cam, model=model: cam(scores=model(x), targets=score)[0],
                "LEAM": at_layer,
            }
        for package, pair in contenders.items():
            theirs, ours = torch.as_tensor(pair["peer"]()), pair["LEAM"]()
            difference = float((stretched(theirs.to(ours)) - ours).abs().max())
            turns = in_turns(pair, effort, x.device)
            what = f"{package} / LEAM, {'last' if layer == 4 else 'second'} layer"
            report.ratio(net.name, what, turns, "peer", "LEAM", "≥ 2.00")
            report.add(net.name, f"{what}: largest difference of the maps", difference, "≤ 0.001")


def stretched(maps: Tensor) -> Tensor:
    """Every map from 0 to 1, as both packages have it."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True)


def say_missing_peers() -> None:
    missing = [package for package, module in PEERS.items() if not find_spec(module)]
    if missing:
        print(f"{' and '.join(missing)} not installed, not measured: pip install 'captum-leam[peers]'")


# -- what a call computes, keeps and waits for ---------------------------------------------------------


def what_is_computed(net: Network, report: Report) -> None:
    """The backward pass ends at the layer; no gradients of parameters; nothing is kept of what comes before it."""
    x, leam, bare = net.images[:2], net.leam(1), net.bare(slice(1, 2))
    run = lambda: leam.attribute(x, reference=net.reference)  # noqa: E731
    trainable = [p for p in net.model.parameters() if p.requires_grad]
    count = operations(run)
    every = sum(isinstance(m, nn.Conv2d) for m in net.model.modules())
    behind = count["aten::convolution_backward"]
    report.add(net.name, "one layer: convolutions in the backward pass / in the model", behind / every, "")
    by_hand = operations(lambda: bare(x))["aten::convolution_backward"]
    report.add(net.name, "one layer: the same / in that of autograd.grad to the layer", behind / by_hand, "≤ 1.00")
    report.add(net.name, "one layer: parameters that got a gradient", sum(p.grad is not None for p in trainable), "≤ 0")
    report.add(
        net.name,
        "MiB kept for the backward pass, over bare",
        kept_for_backward(run) / kept_for_backward(lambda: bare(x)),
        "≤ 1.00",
    )
    five, two = net.leam(slice(None)), net.leam(slice(0, 3))
    calls: dict[str, Run] = {
        "one layer": run,
        "five layers": lambda: five.attribute(x, reference=net.reference),
        f"three layers, path of {STEPS}": lambda: two.attribute(x, reference=net.reference, n_steps=STEPS),
    }
    for what, call in calls.items():
        report.add(net.name, f"{what}: looks at the device in a call", looks(call, x.device), "≤ 1")


def operations(run: Run) -> Counter[str]:
    """How often each operation ran."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run()
    return Counter({event.key: event.count for event in trace.key_averages()})


def kept_for_backward(run: Run) -> int:
    """Bytes of distinct storages that the graph keeps, those of parameters too."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def looks(run: Run, device: torch.device) -> int:
    """How often the processor waits for the device: of CUDA, as PyTorch's own debug mode counts; else by the operations that would."""
    if device.type == "cuda":
        run()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                run()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(w.message) for w in caught)
    count = operations(run)
    return count["aten::_local_scalar_dense"] + count["aten::nonzero"] + count["aten::equal"]


def growth(net: Network, report: Report, calls: int) -> None:
    """Resident memory after many calls of one image, over that after a few."""
    x, leam = net.images[:1], net.leam(1)

    def call(times: int) -> None:
        for _ in range(times):
            leam.attribute(x, reference=net.reference)
        gc.collect()

    call(calls // 10)
    before = resident()
    call(calls)
    report.add(net.name, f"resident memory after {calls} calls, growth in %", 100 * (resident() / before - 1), "≤ 1.00")


def resident() -> int:
    """Bytes of the process in memory; where the system has no /proc, the most there ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_memory(run: Run, device: torch.device) -> float:
    """Bytes that the allocator holds at most, above what it held before."""
    run()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    return max(0, *pd.Series(_allocations(trace)).cumsum())


def _allocations(trace: profile) -> list[int]:
    """Bytes taken (and given back, negative), in order of time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(file))
        events = [e for e in json.loads(file.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    return [e["args"]["Bytes"] for e in sorted(events, key=lambda e: e["ts"])]


def check_same(net: Network) -> None:
    """What is timed says the same: LEAM's map is that of the gradients by hand, and with channel weights that of LayerGradCam."""
    x = net.images[:2]
    ((gradient, activation),) = net.bare(slice(1, 2))(x)
    pairs = [
        (net.leam(1), (gradient * activation).sum(1, keepdim=True).detach()),
        (net.leam(1, weighting="channel"), net.grad_cam(1).attribute(x).detach()),
    ]
    for leam, expected in pairs:
        found = leam.attribute(x, reference=net.reference)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def where_time_goes(net: Network) -> None:
    """Operations of bare PyTorch and of LEAM, by their own time."""
    x, bare, leam = net.images, net.bare(slice(1, 2)), net.leam(1)
    runs: dict[str, Run] = {"bare": lambda: bare(x), "LEAM": lambda: leam.attribute(x, reference=net.reference)}
    own: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        run()
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            run()
        own[name] = {event.key: event.self_cpu_time_total / 1e3 for event in trace.key_averages()}
    table = pd.DataFrame(own).fillna(0)
    table["more"] = table["LEAM"] - table["bare"]
    table.loc["all"] = table.sum()
    print(f"\n{net.name}, milliseconds\n{table.nlargest(20, 'LEAM').round(1).to_string()}")


# -- starting up ---------------------------------------------------------------------------------------


def start_up(report: Report, repeats: int) -> None:
    python = [sys.executable, "-c"]
    commands = {
        "nothing": [*python, "pass"],
        "captum": [*python, "import captum"],
        "captum_leam": [*python, "import captum_leam"],
        "captum.attr": [*python, "import captum.attr"],
        "LEAM": [*python, "from captum_leam import LEAM"],
        "help": [*python, "from captum_leam.cli import main; main()", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603
            taken[name].append(time.perf_counter() - started)
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    report.add(
        STARTING, "import captum_leam beyond import captum, s", seconds["captum_leam"] - seconds["captum"], "≤ 0.15"
    )
    beyond = seconds["LEAM"] - seconds["captum.attr"]
    report.add(STARTING, "from captum_leam import LEAM beyond import captum.attr, s", beyond, "")
    report.add(STARTING, "captum-leam --help, s", seconds["help"], "≤ 0.40")


def machine(device: str) -> str:
    names = [platform.machine(), f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    if device.startswith("cuda"):
        names = [torch.cuda.get_device_name(device)]
    packages = [f"{package} {version(package)}" for package in ("torch", "captum", "captum-leam")]
    return ", ".join([*names, f"Python {platform.python_version()}", *packages])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seconds", type=float, default=12, help="of turns, for each group of each network")
    parser.add_argument("--only", nargs="+", help="networks whose name contains one of these")
    parser.add_argument("--quick", action="store_true", help="batch 2, one turn, 100 calls")
    parser.add_argument(
        "--profile", action="store_true", help="print where bare PyTorch and LEAM spend their time, and no more"
    )
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    parser.add_argument("--table", type=Path, help="also write a Markdown table, as in docs/_data/speed.txt")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(machine(options.device))
    say_missing_peers()
    effort = Effort(0, 1) if options.quick else Effort(options.seconds, 3)
    batch = options.batch or (2 if options.quick else None)
    report = Report()
    builders = networks(options.data, batch, options.device)
    if options.only:
        builders = {n: b for n, b in builders.items() if any(part.lower() in n.lower() for part in options.only)}
    batches: list[str] = []
    for build in builders.values():
        net = build()
        batches.append(f"{net.name}: {len(net.images)} images")
        if options.profile:
            where_time_goes(net)
            continue
        for measure in (one_layer, five_layers, path, peers):
            measure(net, report, effort)
        what_is_computed(net, report)
        if net.name == next(iter(builders)):
            growth(net, report, 100 if options.quick else 1000)
    if options.profile:
        return
    start_up(report, 1 if options.quick else 5)
    options.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(report.lines).to_csv(options.out / "speed.csv", index=False)
    if options.table:
        conditions = "; ".join(
            [machine(options.device), *batches, f"{effort.seconds:g} s and {effort.turns} turns a group at least"]
        )
        options.table.write_text(f"{conditions}\n\n{report.table()}\n")
    missed = [f"{line['network']}: {line['what']}" for line in report.lines if line["met"] is False]
    print(f"\n{len(report.lines)} figures in {options.out / 'speed.csv'}; missed: {'; '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()

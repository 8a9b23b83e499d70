"""Random small networks, run twice: as modules that LEAM hooks, and by a second interpreter without hooks or modules.

A program is a list of steps over registers of equal shape. The interpreter keeps *cells*: two registers that hold one tensor (an in-place
activation, ``nn.Identity``) share a cell, and a change in place changes the cell. What a layer puts out or takes in becomes a leaf by
running the program again with the cell's last value replaced.
"""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHANNELS = 4

# Steps with a module, and the same in functions. In-place ones and those that hand on what they take in share the cell.
MODULES = (
    "conv",
    "again",
    "batchnorm",
    "groupnorm",
    "relu",
    "relu_",
    "leaky_",
    "softplus",
    "identity",
    "dropout",
    "split",
)
SHARING = ("relu_", "leaky_", "identity", "dropout")
FREE = ("add", "add_", "gate")
MODES = ("", "", "", "enable", "no_grad", "bare", "checkpoint")


@dataclass(frozen=True)
class Step:
    """``kind`` of register ``a`` (and ``b``), in a gradient mode that the model sets itself."""

    kind: str
    a: int
    b: int
    mode: str = ""


class Split(nn.Module):
    """Two outputs; the first a view of what is taken in."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = CHANNELS // 2
        return x[:, :half], x[:, half:] * 1.5


def _made(kind: str) -> nn.Module:
    return {
        "conv": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        "batchnorm": lambda: nn.BatchNorm2d(CHANNELS),
        "groupnorm": lambda: nn.GroupNorm(2, CHANNELS),
        "relu": nn.ReLU,
        "relu_": lambda: nn.ReLU(inplace=True),
        "leaky_": lambda: nn.LeakyReLU(0.2, inplace=True),
        "softplus": nn.Softplus,
        "identity": nn.Identity,
        "dropout": nn.Dropout,
        "split": Split,
    }[kind]()


class Program(nn.Module):
    """The network, as people write them."""

    def __init__(self, steps: list[Step], inputs: int, seed: int) -> None:
        super().__init__()
        self.steps, self.inputs = steps, inputs
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.shared = nn.Conv2d(CHANNELS, CHANNELS, 1)
            self.parts = nn.ModuleDict({str(i): _made(s.kind) for i, s in enumerate(steps) if self.own(s)})
            self.stem = nn.ModuleList([nn.Conv2d(3, CHANNELS, 3, padding=1) for _ in range(inputs)])
            self.head = nn.Linear(CHANNELS * 4, 5)
            for p in self.parameters():
                p.data.normal_(0.1, 0.5)
            for name, b in self.named_buffers():
                if b.is_floating_point():
                    b.uniform_(0.5, 1.5) if name.endswith("var") else b.normal_(0, 0.3)
        self.eval()

    @staticmethod
    def own(step: Step) -> bool:
        return step.kind in MODULES and step.kind != "again"

    def layer(self, at: int) -> nn.Module:
        return self.parts[str(at)]

    def forward(self, *xs: Tensor) -> Tensor:
        held = [stem(x) for stem, x in zip(self.stem, xs, strict=True)]
        for i, step in enumerate(self.steps):
            held.append(self._step(i, step, held[step.a], held[step.b]))
        return self.head(F.adaptive_avg_pool2d(torch.tanh(held[-1] + 0.5 * held[len(held) // 2]), 2).flatten(1))

    def _step(self, i: int, step: Step, a: Tensor, b: Tensor) -> Tensor:
        if step.kind == "add":
            return a + b
        if step.kind == "add_":
            a += b
            return a
        if step.kind == "gate":
            return a * torch.sigmoid(b)
        module = self.shared if step.kind == "again" else self.layer(i)
        if step.kind == "split":
            first, second = module(a)
            return torch.cat([second, first], 1)
        return _in_mode(step.mode, module, a)


def _in_mode(mode: str, module: nn.Module, a: Tensor) -> Tensor:
    if mode == "checkpoint":
        return checkpoint(module, a, use_reentrant=False)
    if mode == "bare":
        torch.set_grad_enabled(torch.is_grad_enabled())
    context = {"enable": torch.enable_grad, "no_grad": torch.no_grad}.get(mode, contextlib.nullcontext)
    with context():
        return module(a)


# -- the second implementation ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """Where a leaf is put in: the ``write``-th write of a cell (of a split, its two parts instead)."""

    write: int
    parts: bool = False


@dataclass
class Trace:
    """One run: the embedding, what was put in as leaves, and which write every step reads and makes."""

    embedding: Tensor
    leaves: list[Tensor]
    read: list[int]
    written: list[int]
    in_place: bool


def interpret(program: Program, xs: tuple[Tensor, ...], probe: Probe | None = None) -> Trace:
    """The program, with functions; the value of one write made a leaf."""
    weights = dict(program.state_dict())
    cells: list[Tensor] = []  # values
    last: list[int] = []  # the last write of every cell
    where: list[int] = []  # the cell of every register
    leaves: list[Tensor] = []
    read: list[int] = []
    written: list[int] = []
    writes = 0
    in_place = False

    def write(value: Tensor, cell: int | None) -> int:
        nonlocal writes
        if probe is not None and not probe.parts and probe.write == writes:
            leaves.append(value.detach().clone().requires_grad_())
            value = leaves[-1]
        if cell is None:
            cells.append(value)
            last.append(writes)
            cell = len(cells) - 1
        else:
            cells[cell], last[cell] = value, writes
        writes += 1
        return cell

    for k, x in enumerate(xs):
        where.append(write(_conv(x, weights, f"stem.{k}", 1), None))
    for i, step in enumerate(program.steps):
        cell, a, b = where[step.a], cells[where[step.a]], cells[where[step.b]]
        read.append(last[cell])
        if step.kind == "split":
            parts = [a[:, : CHANNELS // 2], a[:, CHANNELS // 2 :] * 1.5]
            if probe is not None and probe.parts and probe.write == writes:
                parts = [p.detach().clone().requires_grad_() for p in parts]
                leaves += parts
            where.append(write(torch.cat([parts[1], parts[0]], 1), None))
        elif step.kind in ("identity", "dropout"):
            where.append(cell)
        else:
            value = _value(step, f"parts.{i}", a, b, weights)
            where.append(write(value, cell if step.kind in (*SHARING, "add_") else None))
        in_place |= step.kind in ("relu_", "leaky_", "add_")
        written.append(last[where[-1]])
    final = torch.tanh(cells[where[-1]] + 0.5 * cells[where[len(where) // 2]])
    pooled = F.adaptive_avg_pool2d(final, 2).flatten(1)
    embedding = F.linear(pooled, weights["head.weight"], weights["head.bias"])
    return Trace(embedding, leaves, read, written, in_place)


def _conv(x: Tensor, weights: dict[str, Tensor], name: str, padding: int) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)


def _value(step: Step, name: str, a: Tensor, b: Tensor, w: dict[str, Tensor]) -> Tensor:
    if step.kind in ("add", "add_"):
        return a + b
    if step.kind == "gate":
        return a * torch.sigmoid(b)
    if step.kind == "conv":
        value = _conv(a, w, name, 1)
    elif step.kind == "again":
        value = _conv(a, w, "shared", 0)
    elif step.kind == "batchnorm":
        scale = w[f"{name}.weight"] / torch.sqrt(w[f"{name}.running_var"] + 1e-5)
        value = (a - w[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][:, None, None]
    elif step.kind == "groupnorm":
        groups = a.reshape(len(a), 2, CHANNELS // 2 * a.shape[2] * a.shape[3])
        groups = (groups - groups.mean(2, keepdim=True)) / torch.sqrt(
            groups.var(2, unbiased=False, keepdim=True) + 1e-5
        )
        value = groups.view_as(a) * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]
    elif step.kind in ("relu", "relu_"):
        value = a * (a > 0)
    elif step.kind == "leaky_":
        value = torch.where(a > 0, a, 0.2 * a)
    else:
        value = torch.logaddexp(a, torch.zeros_like(a))
    return value.detach() if step.mode == "no_grad" and step.kind in MODULES else value


def oracle(
    program: Program, xs: tuple[Tensor, ...], at: int, towards: Tensor, *, takes_in: bool = False
) -> list[Tensor] | None:
    """Signed elementwise maps of the detached cosine at a step's layer; None where there is no gradient."""
    plain = interpret(program, xs)
    split = program.steps[at].kind == "split" and not takes_in
    trace = interpret(program, xs, Probe(plain.read[at] if takes_in else plain.written[at], split))
    f = trace.embedding
    if not f.requires_grad:
        return None
    score = (f * towards / torch.linalg.vector_norm(towards, dim=-1, keepdim=True)).sum(1)
    score = score / torch.linalg.vector_norm(f.detach(), dim=1)
    gradients = torch.autograd.grad(score.sum(), trace.leaves, allow_unused=True)
    if all(g is None for g in gradients):
        return None
    return [
        torch.zeros_like(a[:, :1]).detach() if g is None else (g * a).sum(1, keepdim=True).detach()
        for g, a in zip(gradients, trace.leaves, strict=True)
    ]


# -- drawing -----------------------------------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn, *, modes: bool = True, kinds: tuple[str, ...] = MODULES + FREE) -> Program:
    """A program of 2 to 7 steps on one or two inputs; at least one step has a module of its own."""
    inputs = draw(st.integers(1, 2))
    steps: list[Step] = []
    for i in range(draw(st.integers(2, 7))):
        kind = draw(st.sampled_from(kinds)) if i else "conv"
        register = st.integers(max(0, inputs + i - 3), inputs + i - 1)  # near ones: chains with skips
        a, b = draw(register), draw(register)
        mode = draw(st.sampled_from(MODES)) if modes and kind in ("conv", "again", "relu", "softplus") else ""
        steps.append(Step(kind, a, b, mode))
    return Program(steps, inputs, draw(st.integers(0, 2**20)))


def own_layers(program: Program) -> list[int]:
    """Steps that can be explained: those with a module that runs once."""
    return [i for i, step in enumerate(program.steps) if Program.own(step)]


LAYOUTS = ("plain", "channels last", "strided", "expanded", "needs gradients", "turned")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Equal images (of ``"expanded"``, all the first) that lie differently in memory."""
    if layout == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return torch.stack([x, -x], -1).flatten(-2)[..., ::2]
    if layout == "expanded":
        return x[:1].expand_as(x)
    if layout == "needs gradients":
        return x.clone().requires_grad_()
    return x.flip(0).flip(0).transpose(2, 3).contiguous().transpose(2, 3) if layout == "turned" else x

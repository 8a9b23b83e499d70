"""Does every test of the contract with Captum fail when its clause is broken?

    python tools/mutants.py [--only TEXT]

Each mutant is one edit of a copy of the package and the test that must notice it. Prints a line per mutant; exit code 1 if one survives.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/test_captum_contract.py", "tests/test_guards.py", "tests/test_exact.py", "tests/test_cost.py"]

# (the clause that is broken, file, text, what it becomes, the test that must fail)
MUTANTS = [
    (
        "the fixed norm has the contrast",
        "leam.py",
        "weights = fixed_weights(output, reference, contrast)",
        "weights = fixed_weights(output, reference)",
        "contrast_of_the_fixed_norm",
    ),
    (
        "the delta's baseline gets the additional arguments",
        "leam.py",
        "start = as_output(self.forward_func(*self._baselines(start_point, xs), *args)",
        "start = as_output(self.forward_func(*self._baselines(start_point, xs), *args[:0])",
        "arguments_along_a_path",
    ),
    (
        "additional arguments are repeated with the steps",
        "passes.py",
        "return repeat_args(self.args, times, len(xs[0]) // times)",
        "return self.args",
        "arguments_along_a_path",
    ),
    (
        "channels are kept along a path too",
        "leam.py",
        "maps = self._sum(terms, passes, attr_dim_summation)",
        "maps = self._sum(terms, passes, attr_dim_summation or n_steps > 1)",
        "channels_along_a_path",
    ),
    (
        "EmbeddingSimilarity.fixed_weights has the contrast",
        "objectives.py",
        "return fixed_weights(as_embeddings(self.model(inputs, *args), len(inputs)), reference, contrast)",
        "return fixed_weights(as_embeddings(self.model(inputs, *args), len(inputs)), reference)",
        "contrast_of_the_fixed_norm",
    ),
    (
        "what rounding noise is",
        "leam.py",
        "0.1 * tiny * passes.scores.abs()",
        "0 * tiny * passes.scores.abs()",
        "normalises_has_no_map",
    ),
    (
        "a skip connection is differentiated whole",
        "layers.py",
        "shared = [inputs or not args or _is_among(t, args) for t in tensors]",
        "shared = [False for t in tensors]",
        "hands_on_what_is_used_beside_it",
    ),
    (
        "the graph starts at the inputs where a layer hands on what it takes in",
        "layers.py",
        "recording.is_shared |= any(shared)",
        "recording.is_shared |= False",
        "hands_on_what_is_used_beside_it",
    ),
    (
        "nothing before the first layer is kept",
        "passes.py",
        "self.cut = not self.layer_input and",
        "self.cut = False and",
        "nothing_before_the_layer_is_kept",
    ),
    (
        "a model that sets the gradient mode is run again",
        "passes.py",
        "self.cut = torch.is_grad_enabled() and",
        "self.cut =",
        "sets_the_gradient_mode",
    ),
    (
        "models get copies of the images",
        "passes.py",
        "forward(*[x.clone() for x in xs],",
        "forward(*xs,",
        "work_in_place_on_their_input",
    ),
    (
        "checks wait for the end of the call",
        "checks.py",
        "    if gathered is None:",
        "    if True:",
        "looks_once_whether_all_is_well",
    ),
    (
        "modules behind opaque callables are watched",
        "layers.py",
        "handles = [register_module_forward_pre_hook(look)] if opaque else []",
        "handles = []",
        "wherever_they_hide",
    ),
    (
        "a LayerAttribution and GradientAttribution",
        "leam.py",
        "class LEAM(LayerAttribution, GradientAttribution)",
        "class LEAM(LayerAttribution)",
        "is_a_layer_and_gradient",
    ),
    (
        "LayerGradCam's positional arguments",
        "leam.py",
        "        attr_dim_summation: bool = True,\n        grad_kwargs: dict[str, Any] | None = None,\n        *,",
        "        grad_kwargs: dict[str, Any] | None = None,\n        attr_dim_summation: bool = True,\n        *,",
        "positional_signature",
    ),
    (
        "our options are keyword-only",
        "leam.py",
        "        device_ids: list[int] | None = None,\n        *,",
        "        device_ids: list[int] | None = None,",
        "positional_signature",
    ),
    (
        "usage is logged",
        "leam.py",
        "    @log_usage()  # type: ignore[untyped-decorator]\n    def attribute",
        "    def attribute",
        "attribute_is_logged",
    ),
    ("the name", "leam.py", 'return "LEAM"', 'return "Leam"', "is_a_layer_and_gradient"),
    (
        "has_convergence_delta",
        "leam.py",
        "def has_convergence_delta(self) -> bool:",
        "def has_convergence_delta_(self) -> bool:",
        "is_a_layer_and_gradient",
    ),
    (
        "a list of layers gives a list",
        "leam.py",
        "result = of_layers if isinstance(self.layer, list) else of_layers[0]",
        "result = of_layers if len(of_layers) > 1 else of_layers[0]",
        "one_layer_gives_a_tensor",
    ),
    (
        "several outputs give a tuple",
        "leam.py",
        "[m if passes.tuples[layer] else m[0]",
        "[m[0] if passes.tuples[layer] else m[0]",
        "several_outputs",
    ),
    (
        "maps are signed",
        "leam.py",
        "        if relu_attributions:\n",
        "        if True:\n",
        "signed_raw_small",
    ),
    (
        "relu_attributions",
        "leam.py",
        "        if relu_attributions:\n",
        "        if False:\n",
        "signed_raw_small",
    ),
    (
        "maps are detached",
        "leam.py",
        "lambda g, d: weighted(g.detach(), d.detach())",
        "lambda g, d: weighted(g, d)",
        "signed_raw_small",
    ),
    (
        "target must be None",
        "leam.py",
        "if target is not None:",
        "if False:",
        "target",
    ),
    (
        "additional arguments reach the model",
        "leam.py",
        "self._passes(xs, forward_args(additional_forward_args), ",
        "self._passes(xs, (), ",
        "additional_arguments",
    ),
    (
        "grad_kwargs reach autograd",
        "leam.py",
        "self.device_ids, grad_kwargs or {}",
        "self.device_ids, {}",
        "grad_kwargs",
    ),
    (
        "layers share one backward pass",
        "passes.py",
        "found = dict(zip(map(id, kept), self._backward(score, kept), strict=True))",
        "found = {id(t): torch.autograd.grad(score.sum(), t, retain_graph=True)[0] for t in kept}",
        "share_one_forward",
    ),
    (
        "works under no_grad and inference_mode",
        "leam.py",
        "with torch.inference_mode(False), torch.enable_grad(), eager(), together():\n            xs",
        "with eager(), together():\n            xs",
        "any_gradient_mode",
    ),
    (
        "frozen parameters and in-place activations",
        "layers.py",
        "return tensor if tensor.requires_grad and not leaf else tensor.detach().requires_grad_()",
        "return tensor",
        "frozen_parameters",
    ),
    (
        "hooks go when anything raises",
        "layers.py",
        "        yield recordings\n    finally:\n        for handle in handles:",
        "        yield recordings\n    finally:\n        for handle in handles[1:]:",
        "hooks_go",
    ),
    (
        "parameters get no gradients",
        "passes.py",
        "            return differentiate(score.sum(), kept",
        "            score.sum().backward(retain_graph=True)\n            return differentiate(score.sum(), kept",
        "nothing_of_the_users",
    ),
    (
        "training flags are left alone",
        "leam.py",
        "        refuse_unexplainable(self.forward_func, layers)\n",
        "        refuse_unexplainable(self.forward_func, layers)\n        self.forward_func.eval()\n",
        "nothing_of_the_users",
    ),
    (
        "the random numbers are left alone",
        "leam.py",
        "        refuse_unexplainable(self.forward_func, layers)\n",
        "        refuse_unexplainable(self.forward_func, layers)\n        torch.rand(1)\n",
        "nothing_of_the_users",
    ),
    (
        "active BatchNorm and Dropout are refused",
        "layers.py",
        "            _refuse_active(name, module)\n",
        "            pass\n",
        "active",
    ),
    (
        "nothing is kept between calls",
        "leam.py",
        "            maps = self._sum(terms, passes",
        "            terms = self.kept = list(terms)\n            maps = self._sum(terms, passes",
        "nothing_is_kept",
    ),
    (
        "a reference per image meets another batch size: an error, not a guess",
        "objectives.py",
        "rows.shape[0] not in (1, batch)",
        "rows.shape[0] == 0",
        "another_batch_size",
    ),
    (
        "the reference is computed outside the hooked pass, from x",
        "leam.py",
        "    objective = objective_at(output)\n    sums",
        "    objective = objective_at(_)\n    sums",
        "own_embedding or baseline or reference",
    ),
    (
        "NoiseTunnel finds attribute.__wrapped__",
        "leam.py",
        "    @log_usage()  # type: ignore[untyped-decorator]\n    def attribute",
        "    def attribute",
        "noise_tunnel",
    ),
    (
        "tokens take a reshape",
        "passes.py",
        "tuple(t if r is None else r(t) for t in _join(runs[layer]))",
        "tuple(t for t in _join(runs[layer]))",
        "tokens",
    ),
]


def survives(folder: Path, file: str, text: str, becomes: str, test: str) -> bool:
    """Whether the test still passes with the edit."""
    package = folder / "captum_leam"
    shutil.copytree(ROOT / "captum_leam", package, dirs_exist_ok=True)
    source = (package / file).read_text()
    if source.count(text) < 1:
        raise SystemExit(f"{file} no longer holds {text!r}: bring tools/mutants.py up to date.")
    (package / file).write_text(source.replace(text, becomes, 1))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS, "-k", test]
    command += ["-o", f"pythonpath={ROOT / 'tests'} {folder}"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest stopped with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose clause holds this text")
    chosen = [m for m in MUTANTS if parser.parse_args().only in m[0]]
    alive = 0
    for clause, file, text, becomes, test in chosen:
        with tempfile.TemporaryDirectory() as folder:
            lives = survives(Path(folder), file, text, becomes, test)
        alive += lives
        print(f"{'SURVIVES' if lives else 'caught':9s} {clause}  ({file}, -k {test})", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} caught")
    raise SystemExit(alive > 0)


if __name__ == "__main__":
    main()

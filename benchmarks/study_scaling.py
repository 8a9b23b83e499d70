"""Do workers help, and do all engines give the same tables? Serial, 2 processes and Ray on one study, one thread each.

    python benchmarks/study_scaling.py [--data ../shared/real] [--people 40] [--images 5] [--repeats 2] [--engines serial processes ray]
        [--preset layers]

Every run is the command in a process of its own, into an empty folder; wall-clock seconds of the whole run, until the first worker had
started and loaded its networks, and of the stages that workers do from then on. Models: with --data the networks and faces there, else
captum_leam.synthetic.EmbeddingNet with random weights on synthetic people. On a machine that does other work meanwhile the ratios mean
little; the load is printed beside them. Not shown: several machines, GPUs.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from study_scale import write_config, write_people, write_real

from captum_leam.study.executor import STARTING

QUICK = {"permutations": 99, "resamples": 200}
STAGES = ("reading and embedding", "explaining", "other people", "comparing")


def run(path: Path, engine: str, out: Path) -> dict[str, float]:
    """Seconds of the whole command, until workers had started, and of their stages."""
    shutil.rmtree(out, ignore_errors=True)
    jobs = "1" if engine == "serial" else "2"
    code = "from captum_leam.cli import main; main()"
    command = [sys.executable, "-c", code, "study", str(path), "--out", str(out), "--engine", engine, "--jobs", jobs]
    began = time.monotonic()
    subprocess.run([*command, "--no-report", "--no-progress"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    whole = time.monotonic() - began
    seconds = json.loads((out / "manifest.json").read_text())["run"]["seconds"]
    return {"whole": whole, "start": seconds[STARTING], "stages": sum(seconds[stage] for stage in STAGES)}


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--engines", nargs="+", default=["serial", "processes", "ray"])
    parser.add_argument("--preset", default="layers", help="overall map of the study")
    parser.add_argument("--out", type=Path, default=Path("results/study_scaling"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        write_people(options.out / "faces", options.people, options.images)
        path = write_config(options.out, 2, 99, options.preset)
    else:
        path = write_real(options.out, options.data, options.preset, shard_size=18, patterns=QUICK)
    took: dict[str, list[dict[str, float]]] = {engine: [] for engine in options.engines}
    for _ in range(options.repeats):  # in turn, so that what else the machine does meets all of them
        for engine in options.engines:
            took[engine].append(run(path, engine, options.out / engine))
            parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took[engine][-1].items())
            print(f"{engine}: {parts}; load {os.getloadavg()[0]:.1f}", flush=True)
    median = {e: {part: statistics.median(t[part] for t in runs) for part in runs[0]} for e, runs in took.items()}
    for first, engine in itertools.combinations(options.engines, 2):
        stages, whole = (median[first][part] / median[engine][part] for part in ("stages", "whole"))
        same = "the same" if tables(options.out / engine) == tables(options.out / first) else "OTHERS"
        print(f"{engine}: {stages:.2f} × the throughput of {first} ({whole:.2f} with start and tables); tables {same}")


if __name__ == "__main__":
    main()

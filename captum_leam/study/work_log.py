"""What the workers of a study did, for its manifest: shards and seconds, lost workers, stragglers."""

import heapq
import statistics
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from captum_leam.study.engines import Outcome

STRAGGLER = 3.0
"""Times the median seconds of its stage from which a task counts as a straggler, if it is a second or more over it."""

NAMED = 10
"""Number of stragglers that are named."""


@dataclass
class WorkLog:
    """What each worker did; small, however many tasks there are.

    Attributes:
        workers: Worker → shards that it made, seconds that these took, and networks that it loaded.
        lost: Shard and reason → workers that were lost with it, in order.

    Example:
        >>> from pathlib import Path
        >>> from captum_leam.study.task import Index, Task
        >>> log, task = WorkLog(), Task("maps", Index(0), Path("a.shard"), {})
        >>> log.add("a.shard", Outcome(task, lost="its node died", worker="node 2, worker 2"))
        >>> log.add("a.shard", Outcome(task, seconds=2.0))
        >>> log.to_dict()["retries"]
        [{'shard': 'a.shard', 'times': 1, 'workers': ['node 2, worker 2'], 'why': 'its node died'}]
    """

    workers: dict[str, Counter[str]] = field(default_factory=dict)
    lost: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _seconds: dict[str, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    _slowest: dict[str, list[tuple[float, str, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, shard: str, outcome: Outcome) -> None:
        """Take up the outcome of a task, by the name of its shard."""
        if outcome.lost:
            self.lost.setdefault((shard, outcome.lost), []).append(outcome.worker)
            return
        stage, seconds = outcome.task.stage, outcome.seconds
        did = {"shards": 1, "seconds": seconds, "networks loaded": outcome.loads}
        self.workers.setdefault(outcome.worker, Counter()).update(did)
        self._seconds[stage].append(seconds)
        keep = heapq.heappush if len(self._slowest[stage]) < NAMED else heapq.heappushpop
        keep(self._slowest[stage], (seconds, shard, outcome.worker))

    def to_dict(self) -> dict[str, Any]:
        """Return workers, retries and stragglers as values that JSON can hold."""
        retries = [
            {"shard": shard, "times": len(workers), "workers": workers, "why": why}
            for (shard, why), workers in self.lost.items()
        ]
        return {
            "workers": {name: {k: round(v, 3) for k, v in did.items()} for name, did in sorted(self.workers.items())},
            "retries": retries,
            "stragglers": self._stragglers(),
        }

    def _stragglers(self) -> list[dict[str, Any]]:
        found: list[tuple[float, dict[str, Any]]] = []
        for stage, slowest in self._slowest.items():
            median = statistics.median(self._seconds[stage])
            found += [
                (seconds, {"shard": shard, "worker": worker, "seconds": round(seconds, 3), "median": round(median, 3)})
                for seconds, shard, worker in slowest
                if seconds > max(STRAGGLER * median, median + 1)
            ]
        return [entry for _, entry in heapq.nlargest(NAMED, found, key=lambda pair: pair[0])]

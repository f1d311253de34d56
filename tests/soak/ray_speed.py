"""Many pictures on a Ray cluster of one node and of two, and by the local engine: pictures/s after the first results.

The nodes are on this machine, with one CPU each. The local engine has as many processes of one thread.

    python tests/soak/ray_speed.py MODEL_DIR FOLDER --rounds 3
    python tests/soak/ray_speed.py --serve MODEL_DIR             (a cluster for service_soak.py -- --engine ray)
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
# Niceness: the clients, on the same cores, would take the workers' time.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from paddle_resnet.inference.find_pictures import find_pictures  # noqa: E402
from paddle_resnet.inference.predict_many import PredictFn, batched, prediction_workers  # noqa: E402
from paddle_resnet.on_ray.predict import ray_tasks  # noqa: E402

BATCH = 8
"""Small, as a task is 4 batches, and the nodes should have many tasks each."""
AT_ONCE = 0.05
"""Results that come so many seconds after the first ones were ready with them."""
OPTIONS: dict[str, Any] = {"device": "cpu", "batch_size": BATCH, "threshold": None, "precision": None, "backend": None}


def main() -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", help="of pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help="measure the service on two nodes instead")
    options = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        if options.serve:
            cluster.add_node(num_cpus=1)
            soak = [sys.executable, PROJECT / "tests/soak/service_soak.py", options.model, "--overload", "0"]
            loads = ["--images", *["1"] * options.rounds, "--seconds", "12"]
            return subprocess.run([*soak, *loads, "--", "--engine", "ray", "--address", cluster.address]).returncode
        files = [file for file in find_pictures([options.folder]) if isinstance(file, Path)]
        speeds: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for cores in (1, 2):
                local = prediction_workers(options.model, cores, cores, 5, **OPTIONS)
                speeds.setdefault(f"local engine, {cores} processes", []).append(speed(local, files))
                if cores == 2:
                    node = cluster.add_node(num_cpus=1)
                on_ray = ray_tasks(options.model, cluster.address, 1, 5, Counter(), **OPTIONS)
                speeds.setdefault(f"Ray, {cores} nodes", []).append(speed(on_ray, files))
            cluster.remove_node(node)
        for name, each in speeds.items():
            print(
                f"{name}: {statistics.median(each):.1f} pictures/s ({min(each):.1f}-{max(each):.1f}, n = {len(each)})"
            )
        return 0
    finally:
        ray.shutdown()
        cluster.shutdown()


def speed(opened: AbstractContextManager[PredictFn], files: list[Path]) -> float:
    """Return pictures/s from the first results to the last."""
    done, started, began = 0, 0.0, time.perf_counter()
    with opened as predict:
        for results in predict(batched(files, BATCH)):
            started = started or time.perf_counter()
            if time.perf_counter() - started > AT_ONCE:
                done += len(results)
        ended = time.perf_counter()
    print(f"  first results after {started - began:.1f} s, all after {ended - began:.1f} s", flush=True)
    return done / (ended - started)


if __name__ == "__main__":
    sys.exit(main())

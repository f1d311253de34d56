"""Benchmark `train`: whole training steps, by this project through `paddle.Model.fit` and by PyTorch."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import product
from typing import Any

from paddle_resnet.benchmark import report
from paddle_resnet.benchmark.cases import PADDLE, TORCH, TrainCase
from paddle_resnet.benchmark.runner import Job, run_jobs
from paddle_resnet.errors import UsageError
from paddle_resnet.models import create_model
from paddle_resnet.models.summary import summarize
from paddle_resnet.runtime import default_threads
from paddle_resnet.zoo.registry import ResNetEntry, model_entry

COLUMNS = (
    report.Column("case", "case"),
    report.Column("backend", "backend"),
    report.Column("threads", "threads"),
    report.Column("images/s", "images_per_second", report.rate),
    report.Column("of torch's", "ratio_to_torch", report.spread),
    report.Column("of native's", "ratio_to_native", report.spread),
    report.Column("peak MB", "peak_megabytes", report.megabytes),
    report.Column("of native's", "memory_ratio_to_native", report.spread),
    report.Column("waiting", "waiting_share", lambda summary: f"{summary['median']:.1%}"),
    report.Column("of GEMM rate", "share_of_product_rate", "{:.0%}".format),
)
TRAINING_PASSES = 3  # one product forward, and two backward: for the gradients of the images and of the weights


def benchmark_training(
    cases: Sequence[TrainCase],
    backends: Sequence[str],
    rounds: int,
    steps: int,
    warm_up: int,
    against: Sequence[str] = (),
    threads: Sequence[int | None] = (None,),
) -> report.Report:
    """Train each case with each backend and number of threads in turn.

    `backends` are names of `cases.PADDLE`, `against` of `cases.TORCH`. A run has `steps` timed steps after `warm_up`
    (at least 1). Threads of None are as many as a run chooses (PyTorch: all cores).

    Raises:
        UsageError: a network is unknown, or a backend cannot be used here.
        RunFailure: a run failed.
    """
    rows: list[report.Row] = []
    for case in cases:
        operations = training_operations(case.network, case.size)
        names = (*backends, *against)
        jobs = {
            f"{name}, threads {count or 'auto'}": training_job(case, name, steps, warm_up, count)
            for count, name in product(threads, names)
        }
        measured = iter(run_jobs(jobs, rounds, f"{case}: ").values())
        for count in threads:
            of_count = training_rows(case, dict(zip(names, measured, strict=False)), operations)
            rows += [{**row, "threads": count or "auto"} for row in of_count]
    titles = {str(case): f"{case.network}, {case.size}x{case.size}, batch {case.batch}" for case in cases}
    label = ("{backend}, {threads}" if len({*threads}) > 1 else "{backend}").format_map
    return report.Report(
        command="train",
        title="Training on the CPU, images/s",
        settings={"rounds": rounds, "steps": steps, "warm_up_steps": warm_up},
        rows=rows,
        columns=COLUMNS,
        panels=report.speed_panels(rows, lambda row: titles[row["case"]], label, "backend"),
    )


def training_job(case: TrainCase, backend: str, steps: int, warm_up: int, threads: int | None = None) -> Job:
    """Describe one run for `training_jobs` or `torch_jobs`."""
    job = {"case": str(case), "steps": steps, "warm_up": warm_up, "threads": threads}
    if backend not in TORCH:
        return {**job, "kind": "train", "backend": backend}
    job |= {"network": describe(case.network), "precision": TORCH[backend], "threads": threads or default_threads()}
    return {**job, "kind": "train_torch"}


def training_rows(case: TrainCase, measured: Mapping[str, report.Runs], operations: int) -> list[report.Row]:
    """Make a row for each backend of a case; `operations` are those of training on one image."""
    # The machine's own rate is that of the fastest product in any of these processes.
    product = max(run["product_gflops"] for runs in measured.values() for run in runs)
    rows = []
    for backend, runs in measured.items():
        speeds, native = report.summary_of(runs), measured.get("native")
        rows.append(
            {
                "case": str(case),
                "backend": backend,
                "images_per_second": {**speeds, "runs": [run["images_per_second"] for run in runs]},
                "ratio_to_torch": report.ratio_summary(runs, measured.get(torch_counterpart(backend, measured))),
                "ratio_to_native": report.ratio_summary(runs, native),
                "peak_megabytes": report.summary_of(runs, "peak_megabytes"),
                "memory_ratio_to_native": report.ratio_summary(runs, native, "peak_megabytes"),
                "waiting_share": report.summary_of(runs, "waiting_share"),
                "product_gflops": product,
                "share_of_product_rate": speeds["median"] * operations / 1e9 / product,
                "step_seconds": [run["step_seconds"] for run in runs],
            }
        )
    return rows


def torch_counterpart(backend: str, measured: Container[str]) -> str:
    """Name PyTorch in the backend's own precision if that was measured, else in float32."""
    precision = TORCH.get(backend) or PADDLE[backend].get("cpu_precision", "float32")
    name = next(name for name, autocast in TORCH.items() if autocast == precision)
    return name if name in measured else "torch"


def describe(name: str) -> dict[str, Any]:
    """Describe a network of He et al. 2015 as JSON; raise `UsageError` for an unknown name or another network."""
    entry = model_entry(name)
    if not (
        isinstance(entry, ResNetEntry)
        and entry.block in ("basic", "bottleneck")
        and entry.stem in ("imagenet", "cifar")
        and entry.shortcut in ("zero_pad", "projection")
        and (entry.groups, entry.group_width, entry.first_projection) == (1, 64, False)
    ):
        raise UsageError(
            f"{name}: not available in PyTorch here; choose a network of He et al. 2015, such as resnet20 or resnet50, "
            "or leave --against out"
        )
    return {
        "depths": entry.depths,
        "widths": entry.widths,
        "stem": entry.stem,
        "zero_pad": entry.shortcut == "zero_pad",
        "bottleneck": entry.block == "bottleneck",
        "num_classes": entry.num_classes,
    }


def training_operations(name: str, size: int) -> int:
    """Return the floating-point operations of training on an image ``[3, size, size]``; a multiply-accumulate is two.

    Those of convolutions and linear layers count.
    """
    return 2 * TRAINING_PASSES * summarize(create_model(name), (1, 3, size, size)).macs

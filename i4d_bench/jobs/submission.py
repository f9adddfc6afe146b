"""Results from somebody else's machine: `submit` packs a report with the pictures behind its scores, `validate` holds such a file
against the benchmark and scores the pictures again.

The file is described in `results/submissions.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from i4d_bench import BENCHMARK_VERSION, outputs
from i4d_bench.data.frames import Frames
from i4d_bench.data.opening import open_data
from i4d_bench.data.splits import EVERY_SET, NO_TRUTH, triples
from i4d_bench.loader import targets
from i4d_bench.metrics import image
from i4d_bench.metrics.cards import CARDS
from i4d_bench.metrics.weights import WeightsUnavailable
from i4d_bench.printing import counted, print_table
from i4d_bench.progress import console, track
from i4d_bench.render.views import GREY
from i4d_bench.results import evidence, predictions
from i4d_bench.results.aggregate import aggregate
from i4d_bench.results.environment import code_of, environment
from i4d_bench.results.predictions import Predictions
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.results.submissions import ENDING, PREDICTIONS, RUNS, pack, unpacked
from i4d_bench.types import UserError

ROUNDING = {"psnr": 0.05, "ssim": 5e-3, "lpips_alex": 5e-3}
"""How far a sample's score may move because its picture was rounded to 8 bits, which SSIM sees where all is flat, and was scored on
another machine."""
BATCH = 16


def submit(report: Path, runs: Path, out: Path, name: str, url: str = "") -> Path:
    """Packs a report's runs and their predictions; not those that its tables leave out, which `validate` would not take. name:
    whose results these are. runs: where checkpoints lie. Warns of pictures of real people. Raises UserError for a report that has
    no results, or whose pictures were not kept, or whose samples are gone."""
    if out.suffix != ENDING:
        raise UserError(f"{out}: a submission's name ends in {ENDING}, by which the site finds it")
    store, out = Store(report), outputs.file(out, [report, runs])
    if not len(store.samples):
        raise UserError(f"{report} holds no results to submit")
    files = {RUNS + path.name: path for record in store.records for path in store.files(record)}
    for record in store.records:
        if record.status != "failed":
            files[f"{PREDICTIONS}{record.run_id}.npz"] = _pictures(record, runs)
    pack(out, files, name, url)
    console.print(f"{out}: {counted(len(store.records), 'run')}, {out.stat().st_size / 1e6:.0f} MB")
    filmed = sorted({path for r in store.records if r.data["kind"] == "clips" for path in _data_sets(r)})
    if filmed:
        console.print(
            f"Careful: it holds pictures of real people's faces, those of {', '.join(filmed)} as they are and as avatars. "
            "Pass it on only where they agree."
        )
    return out


def _data_sets(record: Record) -> list[str]:
    world = record.config["world"]
    return [world["path"], *world.get("further", ())]


def _pictures(record: Record, runs: Path) -> Path:
    found = sorted(runs.glob(f"*/{record.run_id}/predictions.npz"))
    if not record.predictions or not found:
        raise UserError(f"the pictures of {record.run_id} are not in {runs}: run it again with --fresh")
    if predictions.hashes(predictions.load(found[0])) != record.predictions:
        raise UserError(
            f"{found[0]} are not the pictures that {record.run_id} was scored on: run it again with --fresh"
        )
    return found[0]


def validate(file: Path, keep: bool = False) -> int:
    """Prints what is wrong with a submission. Returns 1 where anything is, else 0. keep: writes it down beside the file. Raises
    UserError for what is no submission."""
    with unpacked(file) as (manifest, folder):
        store = Store(folder)
        console.print(f"{file.name}: {manifest['name']} {manifest['url']}".rstrip())
        faults = list(_faults(manifest, store))
    if keep:
        evidence.keep_check(file, code_of(environment()), faults)
    for fault in faults:
        console.print(f"wrong: {fault}")
    console.print(f"{len(faults)} faults" if faults else "nothing is wrong with it")
    return int(bool(faults))


def _faults(manifest: dict[str, Any], store: Store) -> Iterator[str]:
    if manifest["benchmark_version"] != BENCHMARK_VERSION:
        yield f"benchmark version {manifest['benchmark_version']}, and this is {BENCHMARK_VERSION}"
        return
    if not store.records:
        yield "it holds no runs"
        return
    if store.left_out:
        yield f"{len(store.left_out)} runs were made otherwise than the others, so that no table can hold them all"
    experiment = store.experiment(store.records[-1])
    frames, _ = open_data(experiment)
    same = frames.meta["hash"] == store.records[-1].data["hash"]
    if not same:
        yield f"its data is {store.records[-1].data['hash']}, here it is {frames.meta['hash']}: nothing is scored again"
    yield from _repeated(store.records)
    moved = []
    for record in track(store.records, "scoring again", len(store.records)):
        if code_of(record.environment).endswith("changes") or not record.environment["commit"]:
            yield f"{record.run_id} was made by code of no commit: {code_of(record.environment)}"
        own = store.samples_of(record)
        yield from _of_others(record, own)
        if record.status == "failed":
            continue
        yield from _incomplete(record, own, frames)
        pictures = predictions.load(store.folder / "predictions" / f"{record.run_id}.npz")
        if predictions.hashes(pictures) != record.predictions:
            yield f"{record.run_id}: its pictures are not those that were scored"
        elif same:
            again = scored(pictures, frames)
            moved.append(again)
            yield from _differs(record, own, again)
    _print(pd.concat(moved) if moved else pd.DataFrame())


def _repeated(records: list[Record]) -> Iterator[str]:
    """Runs that would count twice: two of one design and seed, or one whose pictures another seed is said to have made, too."""
    runs, pictures = {}, {}
    for record in records:
        first = runs.setdefault((record.design, record.seed), record)
        if first is not record:
            yield f"{record.run_id}: {record.design} has a run of seed {record.seed} already, {first.run_id}"
        elif record.predictions:
            first = pictures.setdefault((record.design, *sorted(record.predictions.items())), record)
            if first is not record:
                yield f"{record.run_id}: its pictures are those of {first.run_id}, whose seed is {first.seed}"


def _of_others(record: Record, own: pd.DataFrame) -> Iterator[str]:
    """Rows in a run's file that are another run's, or that stand there twice: means would count them all."""
    for column in ("run_id", "design", "seed"):
        others = set(own[column]) - {getattr(record, column)}
        if others:
            yield f"{record.run_id}: rows of its file have {column} {', '.join(sorted(map(str, others)))}"
    if record.status == "failed" and len(own):
        yield f"{record.run_id}: it failed, and has {len(own)} rows"
    twice = int(own.duplicated(["seed", "set", "sample", "metric"]).sum())
    if twice:
        yield f"{record.run_id}: {twice} rows stand in its file twice (one seed, set, sample and metric)"


def _incomplete(record: Record, own: pd.DataFrame, frames: Frames) -> Iterator[str]:
    """Sets and samples that the split has and the rows lack, metrics that no card describes, means that are not the rows'."""
    for name in EVERY_SET:
        expected = len(triples(frames, "test", name))
        rows = pd.DataFrame(own[own["set"] == name])
        counts = {len(set(of["sample"])) for _, of in rows.groupby("metric")}
        if counts - {expected} or (expected and not counts):
            yield f"{record.run_id}: set {name} has {expected} samples, its rows have {sorted(counts) or 'none'}"
    unknown = set(own["metric"]) - set(CARDS)
    if unknown:
        yield f"{record.run_id}: there is no metric {', '.join(sorted(unknown))}"
        return
    means = aggregate(own.to_dict("records"))
    for name, metrics in record.metrics.items():
        for metric, stored in metrics.items():
            mean = means.get(name, {}).get(metric, {}).get("mean")
            if (mean is None) != (stored["mean"] is None) or (
                mean is not None and not np.isclose(mean, stored["mean"], rtol=1e-4, atol=1e-6)
            ):
                yield f"{record.run_id}: the mean of {name} {metric} is {mean}, and not {stored['mean']}"


@torch.no_grad()
def scored(pictures: Predictions, frames: Frames) -> pd.DataFrame:
    """Rows set, sample, metric, value of ROUNDING's metrics, where there is a true frame. LPIPS where its weights are here."""
    rows = []
    try:
        lpips = image.load_lpips("alex")
    except (WeightsUnavailable, ImportError):
        lpips = None
    for name, images in pictures.items():
        wanted = triples(frames, "test", name).target
        if (wanted == NO_TRUTH).any() or len(wanted) != len(images):
            continue
        for i in range(0, len(images), BATCH):
            part = slice(i, i + BATCH)
            arrays = (frames.arrays[k][wanted[part]] for k in ("rgb", "alpha", "region", "viewmats", "Ks", "landmarks"))
            truth = targets(*(torch.from_numpy(a) for a in arrays), size=frames.resolution)
            target = truth.over(torch.full((len(truth.rgb), 3), GREY))
            pred, mask = torch.from_numpy(images[part]).float() / 255, truth.alpha[..., 0] > 0.5
            values = {"psnr": image.psnr(pred, target, mask), "ssim": image.ssim(pred, target, mask)}
            if lpips is not None:
                values["lpips_alex"] = lpips(pred, target)
            rows += [
                {"set": name, "sample": i + k, "metric": metric, "value": float(value)}
                for metric, column in values.items()
                for k, value in enumerate(column)
            ]
    return pd.DataFrame(rows, columns=["set", "sample", "metric", "value"])


def _differs(record: Record, own: pd.DataFrame, again: pd.DataFrame) -> Iterator[str]:
    both = again.merge(own, on=["set", "sample", "metric"], how="left", suffixes=("", "_submitted"))
    both["by"] = (both["value"] - both["value_submitted"]).abs()
    for metric, most in ROUNDING.items():
        for name in dict.fromkeys(both["set"]):
            by = both.loc[(both["set"] == name) & (both["metric"] == metric), "by"].to_numpy(float)
            if len(by) and metric in record.metrics.get(name, {}) and not (by <= most).all():
                yield f"{record.run_id}: {name} {metric}, scored again, differs by up to {by.max():.3g}"


def _print(again: pd.DataFrame) -> None:
    if len(again):
        means = again.groupby(["set", "metric"])["value"].agg(["count", "mean"]).reset_index()
        rows = [[r["set"], r["metric"], str(r["count"]), f"{r['mean']:.4f}"] for r in means.to_dict("records")]
        print_table(["scored again", "metric", "pictures", "mean"], rows)

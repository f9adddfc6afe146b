"""The run store: a file per run, complete or absent; a table of what was made alike."""

import dataclasses
import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.types import UserError

ALIKE = {"hardware": "cpu", "data": "d", "training": "t", "scoring": "s"}


def record(design="local_adaln", number=1, seed=0, made=None, created="2026-01-01") -> Record:
    return Record(
        run_id=f"{design}-s{seed}-{number}",
        design=design,
        family="local",
        preset="smoke",
        config={},
        overrides={},
        seed=seed,
        driver="sliders",
        data={"kind": "procedural", "hash": "d", "frames": 3},
        status="started",
        scoring="s",
        made=ALIKE | (made or {}),
        environment={"commit": None, "dirty": False, "hardware": "cpu", "versions": {}},
        created=created,
    )


def rows(of: Record, value=30.0):
    return [{"run_id": of.run_id, "design": of.design, "seed": of.seed, "set": "self", "sample": 0, "identity": 1,
             "metric": "psnr", "value": value, "ok": True}]  # fmt: skip


def test_a_run_comes_back_as_it_was_stored(tmp_path):
    store, one = Store(tmp_path), record()
    images = {k: np.full((2, 4, 4, 3), n, np.uint8) for n, k in enumerate(("source", "driver", "truth", "design"))}
    store.add(one, rows(one), images)
    assert dataclasses.asdict(store.records[0]) == dataclasses.asdict(one)
    assert store.samples["value"].tolist() == [30.0]
    assert (
        list(store.images) == ["source", "driver", "truth", "local_adaln"]
        and store.images["local_adaln"][0, 0, 0, 0] == 3
    )


def test_what_runs_no_longer_hold_is_not_read(tmp_path):
    store, one = Store(tmp_path), record()
    store.add(one, [])
    path = tmp_path / "runs" / f"{one.run_id}.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"timings": {"frame/static/eager/b1/n9/r64": {"fps": 9.0}}})
    )
    assert dataclasses.asdict(store.records[0]) == dataclasses.asdict(one)


def test_a_driver_has_the_name_of_today(tmp_path):
    store = Store(tmp_path)
    store.add(dataclasses.replace(record(), driver="oracle"), [])
    assert [r.driver for r in store.records] == ["sliders"]


def test_finished_is_a_matter_of_training_and_scoring(tmp_path):
    store, one = Store(tmp_path), record()
    store.add(one, [])
    assert store.finished(one.run_id, "s")
    assert not store.finished(one.run_id, "another metric") and not store.finished("local_adaln-s0-2", "s")


def test_another_identity_of_a_design_takes_its_place_and_the_first_comes_back_when_asked_for(tmp_path):
    store, first, second = Store(tmp_path), record(number=1), record(number=2, created="2026-01-02")
    store.add(first, rows(first))
    store.add(second, rows(second))
    assert [r.run_id for r in store.records] == [second.run_id]
    assert store.finished(first.run_id, "s"), "nothing finished is lost"
    assert [r.run_id for r in store.records] == [first.run_id] and store.samples["run_id"].tolist() == [first.run_id]
    assert store.finished(second.run_id, "s")


def test_a_table_takes_only_what_was_made_alike(tmp_path):
    store = Store(tmp_path)
    for one in (
        record("static", created="2026-01-01", made={"training": "older code"}),
        record("local_adaln", created="2026-01-02"),
        record("local_mlp", created="2026-01-03"),
    ):
        store.add(one, rows(one))
    assert [r.design for r in store.records] == ["local_adaln", "local_mlp"]
    assert [r.design for r in store.left_out] == ["static"]
    assert set(store.samples["design"]) == {"local_adaln", "local_mlp"}


def test_what_is_asked_for_again_has_the_table_again_as_of_the_day_it_was_made(tmp_path):
    """Whether another run had taken its place or not: nothing is called finished that no table shows."""
    store, newer = Store(tmp_path), {"training": "newer code"}
    older = [record(design, number=1) for design in ("local_adaln", "static")]
    for one in (
        *older,
        record("local_adaln", number=2, made=newer, created="2026-01-02"),
        record("local_mlp", number=2, made=newer, created="2026-01-02"),
    ):
        store.add(one, rows(one))
    for asked in older:
        assert asked not in store.records
        assert store.finished(asked.run_id, "s") and asked.run_id in {r.run_id for r in store.records}
        assert {r.made["training"] for r in store.records} == {"t"}
        assert store.finished("local_mlp-s0-2", "s") and {r.made["training"] for r in store.records} == {"newer code"}
    assert {r.created for r in store.records + store.left_out} == {"2026-01-01", "2026-01-02"}


def test_seeds_of_a_design_stand_side_by_side(tmp_path):
    store = Store(tmp_path)
    for seed in range(3):
        store.add(record(seed=seed, number=seed), [])
    assert [r.seed for r in store.records] == [0, 1, 2]


def test_many_may_write_and_read_at_once(tmp_path):
    """A reader meets whole runs alone, whatever is being written."""

    def write(number: int) -> None:
        one = record(f"design_{number}")
        Store(tmp_path).add(one, rows(one))

    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, n) for n in range(24)]
        while not all(w.done() for w in writing):
            store = Store(tmp_path)
            whole = {r.run_id for r in store.records}
            assert whole <= set(store.samples["run_id"])
        for w in writing:
            w.result()
    assert len(Store(tmp_path).records) == len(Store(tmp_path).samples) == 24


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(**more):
    """A record with these fields, or where they are None without them."""

    def change(path):
        content = json.loads(path.read_text()) | more
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


IMAGES = {k: np.full((2, 4, 4, 3), n, np.uint8) for n, k in enumerate(("source", "driver", "truth", "design"))}
DAMAGES = {
    "record, cut": (".json", cut, "Expecting|Unterminated|delimiter"),
    "record, empty": (".json", lambda path: path.write_bytes(b""), "Expecting value"),
    "record, of another file": (".json", lambda path: path.write_text('{"a": 3}'), "it lacks schema, benchmark_version"),
    "record, no object": (".json", lambda path: path.write_text("[]"), "no JSON object"),
    "record without its machine": (".json", changed(environment=None, seed=None), "it lacks seed, environment"),
    "record with more": (".json", changed(colour="red"), "it has colour"),
    "samples, cut": (".csv.gz", cut, "end-of-stream"),
    "samples, not packed": (".csv.gz", lambda path: path.write_bytes(b"run_id,design"), "gzip"),
    "samples, of another file": (".csv.gz", lambda path: path.write_bytes(gzip.compress(b"a,b\n1,2\n")), "it lacks run_id"),
    "samples, no numbers": (
        ".csv.gz",
        lambda path: path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b",30,", b",x,"))),
        "float",
    ),
    "pictures, cut": (".npz", cut, "cut short"),
    "pictures, empty": (".npz", lambda path: path.write_bytes(b""), "cut short"),
    "pictures, of another file": (".npz", lambda path: np.savez(path, a=np.zeros(3)), "it lacks 'design'"),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "damage", "why"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_named(tmp_path, ending, damage, why):
    store, one = Store(tmp_path), record()
    store.add(one, rows(one), IMAGES)
    damage(tmp_path / "runs" / f"{one.run_id}{ending}")
    with pytest.raises(
        UserError, match=rf"{one.run_id}{ending} is damaged \(.*({why}).*\): restore it or move it away$"
    ):
        _ = store.records, store.samples, store.images


def test_a_file_that_is_cut_anywhere_is_read_whole_or_refused(tmp_path):
    store, one = Store(tmp_path), record()
    store.add(one, rows(one), IMAGES)
    whole = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    for path, content in whole.items():
        for end in range(0, len(content) - 2, 7):
            path.write_bytes(content[:end])
            with pytest.raises(UserError, match="is damaged"):
                _ = store.records, store.samples, store.images
        path.write_bytes(content)
    assert len(store.samples) == 1


def test_samples_that_are_gone_change_no_mean_and_are_made_again(tmp_path):
    store = Store(tmp_path)
    one, two = record(seed=0), record(seed=1, number=2)
    for run in (one, two):
        store.add(run, rows(run))
    store.add(record("static"), [])  # has no scores
    (tmp_path / "runs" / f"{two.run_id}.csv.gz").unlink()
    with pytest.raises(UserError, match=rf"lacks the samples .* of {two.run_id}, whose records have scores"):
        _ = store.samples
    assert store.finished(one.run_id, "s") and not store.finished(two.run_id, "s")
    store.add(two, rows(two))
    assert store.samples["seed"].tolist() == [0, 1]


def test_pictures_are_nothing_without_what_they_share(tmp_path):
    store, one = Store(tmp_path), record()
    store.add(one, rows(one), IMAGES)
    (tmp_path / "runs" / "shown-d.npz").unlink()
    assert store.images == {} and not store.has(one, ".npz")


def test_a_training_is_told_from_another_and_not_from_its_copy():
    one = dataclasses.replace(record(), checkpoint="c", train_seconds=1.25)
    assert dataclasses.replace(one, created="2026-01-02", scoring="another").training == one.training
    assert dataclasses.replace(one, train_seconds=1.5).training != one.training
    assert record().training == record().training != record(created="2026-01-02").training


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        Store(tmp_path / "file" / "report").check_writable()
    Store(tmp_path / "new" / "report").check_writable()
    assert not (tmp_path / "new").exists()

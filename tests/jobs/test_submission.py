"""Results from elsewhere are packed with their pictures, and everything about them is checked."""

import dataclasses
import gzip
import json
import shutil
import zipfile

import numpy as np
import pytest

from i4d_bench.config import presets
from i4d_bench.jobs import submission
from i4d_bench.jobs.run import run
from i4d_bench.results import evidence, predictions, submissions
from i4d_bench.results.store import Store
from i4d_bench.types import UserError


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A submission of one short run, and where the run lies."""
    home = tmp_path_factory.mktemp("submission")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("i4d_bench.report.build_report", lambda *a, **k: None)
        report = run(dataclasses.replace(presets.smoke(), designs=("static",)), home / "reports", home / "runs", jobs=1)
    return submission.submit(report, home / "runs", home / "mine.zip", "A. Body", "https://example.org"), home, report


def changed(packed, tmp_path, change):
    """The submission with `change` of its files' bytes by name, packed again as if all were well."""
    files = {}
    with zipfile.ZipFile(packed[0]) as pack:
        manifest = json.loads(pack.read(submissions.MANIFEST))
        files = {name: pack.read(name) for name in manifest["files"]}
    files = change(files) or files
    manifest["files"] = {name: submissions.digest(data) for name, data in files.items()}
    out = tmp_path / "changed.zip"
    with zipfile.ZipFile(out, "w") as pack:
        pack.writestr(submissions.MANIFEST, json.dumps(manifest))
        for name, data in files.items():
            pack.writestr(name, data)
    return out


def of(files, folder, ending):
    return next(n for n in files if n.startswith(folder) and n.endswith(ending))


def test_a_run_as_it_was_made_is_valid(packed, capsys, monkeypatch):
    monkeypatch.setattr(submission, "code_of", lambda environment: "0123456789ab")
    code = submission.validate(packed[0], keep=True)
    out = capsys.readouterr().out
    assert code == 0, out
    assert evidence.check_of(packed[0]).faults == []
    assert "A. Body https://example.org" in out and "nothing is wrong with it" in out


def test_pictures_of_real_people_are_named(packed, tmp_path, capsys):
    """Whoever is shown may not want to be passed on."""
    _, home, report = packed
    submission.submit(report, home / "runs", tmp_path / "world.zip", "A. Body")
    assert "Careful" not in capsys.readouterr().out
    shutil.copytree(report, tmp_path / "report")
    (file,) = (tmp_path / "report" / "runs").glob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    record["data"]["kind"], record["config"]["world"]["path"] = "clips", "data/anna"
    file.write_text(json.dumps(record), encoding="utf-8")
    submission.submit(tmp_path / "report", home / "runs", tmp_path / "real.zip", "A. Body")
    told = " ".join(capsys.readouterr().out.split())
    assert "Careful: it holds pictures of real people's faces, those of data/anna as they are and as avatars." in told


def test_a_better_score_than_the_pictures_have_is_found(packed, tmp_path, capsys):
    def better(files):
        name = of(files, "runs/", ".csv.gz")
        lines = gzip.decompress(files[name]).decode().splitlines()
        at = next(i for i, line in enumerate(lines) if ",self,0," in line and ",psnr," in line)
        cells = lines[at].split(",")
        cells[-2] = str(float(cells[-2]) + 1)
        lines[at] = ",".join(cells)
        files[name] = gzip.compress("\n".join(lines).encode() + b"\n")

    assert submission.validate(changed(packed, tmp_path, better)) == 1
    out = capsys.readouterr().out
    assert "self psnr, scored again, differs by up to" in out and "the mean of self psnr" in out


def test_other_pictures_and_missing_samples_are_found(packed, tmp_path, capsys):
    def others(files):
        name = of(files, "predictions/", ".npz")
        path = tmp_path / "p.npz"
        path.write_bytes(files[name])
        predictions.save(path, {k: 255 - v for k, v in predictions.load(path).items()})
        files[name] = path.read_bytes()

    assert submission.validate(changed(packed, tmp_path, others)) == 1
    assert "its pictures are not those that were scored" in capsys.readouterr().out

    def fewer(files):
        name = of(files, "runs/", ".csv.gz")
        lines = gzip.decompress(files[name]).decode().splitlines()
        files[name] = gzip.compress("\n".join(li for li in lines if ",cross,0," not in li).encode() + b"\n")

    assert submission.validate(changed(packed, tmp_path, fewer)) == 1
    assert "set cross has 3 samples" in capsys.readouterr().out


def rows_changed(files, change):
    """The rows of the one run there is, as lists of cells."""
    name = of(files, "runs/", ".csv.gz")
    head, *lines = gzip.decompress(files[name]).decode().splitlines()
    rows = change(head.split(","), [line.split(",") for line in lines])
    files[name] = gzip.compress("\n".join([head, *(",".join(cells) for cells in rows)]).encode() + b"\n")


def test_rows_that_are_no_rows_of_their_run_are_found(packed, tmp_path, capsys):
    """They would enter the means, as another seed's for instance."""

    def others(head, rows):
        seed, run, design = (head.index(name) for name in ("seed", "run_id", "design"))
        again = lambda at, value: [[value if k == at else c for k, c in enumerate(cells)] for cells in rows]  # noqa: E731
        return [*rows, *again(seed, "1"), *again(seed, "2"), *again(run, "theirs"), *again(design, "local_adaln")]

    assert submission.validate(changed(packed, tmp_path, lambda files: rows_changed(files, others))) == 1
    out = capsys.readouterr().out.replace("\n", " ")
    for said in ("have seed 1, 2", "have run_id theirs", "have design local_adaln", "stand in its file twice"):
        assert said in out


def test_runs_that_would_count_twice_are_found(packed, tmp_path, capsys):
    """One run said to be another seed's, pictures and all, and a second one of the same seed."""

    def copied(files):
        samples, pictures = of(files, "runs/", ".csv.gz"), of(files, "predictions/", "")
        own = json.loads(files[of(files, "runs/", ".json")]) | {"created": "2999-01-01"}
        for name, seed in (("again", own["seed"]), ("other", own["seed"] + 1)):
            files[f"runs/{name}.json"] = json.dumps({**own, "run_id": name, "seed": seed}).encode()
            files[f"runs/{name}.csv.gz"], files[f"predictions/{name}.npz"] = files[samples], files[pictures]

    assert submission.validate(changed(packed, tmp_path, copied)) == 1
    out = capsys.readouterr().out.replace("\n", " ")
    assert "again: static has a run of seed 0 already" in out and "other: its pictures are those of static-s0" in out


def test_a_changed_file_and_one_that_is_no_submission_are_refused(packed, tmp_path):
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(packed[0]) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + b" " * name.endswith(".json"))
    with pytest.raises(UserError, match="is not the file that was packed"):
        submission.validate(broken)
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no submission"):
        submission.validate(broken)
    with zipfile.ZipFile(broken, "w") as other:
        other.writestr("a.txt", "a")
    with pytest.raises(UserError, match=r"is no submission \(it lacks manifest.json\)"):
        submission.validate(broken)
    with pytest.raises(UserError, match="there is no file"):
        submission.validate(tmp_path / "nope.zip")
    with pytest.raises(UserError, match="a file where none belongs"):
        submission.validate(changed(packed, tmp_path, lambda files: {**files, "runs/../../x": b""}))


@pytest.mark.parametrize(("folder", "ending"), [("runs/", ".json"), ("runs/", ".csv.gz"), ("predictions/", ".npz")])
def test_a_damaged_file_of_a_submission_is_named_as_it_is_called_there(packed, tmp_path, folder, ending):
    def cut(files):
        name = of(files, folder, ending)
        files[name] = files[name][: len(files[name]) // 2]

    with pytest.raises(UserError, match=rf"changed.zip/{folder}static-s0-\w+{ending} is damaged"):
        submission.validate(changed(packed, tmp_path, cut))


def test_samples_that_are_gone_are_not_submitted(packed, tmp_path):
    _, home, report = packed
    shutil.copytree(report, tmp_path / "report")
    next(tmp_path.glob("report/runs/*.csv.gz")).unlink()
    with pytest.raises(UserError, match="lacks the samples"):
        submission.submit(tmp_path / "report", home / "runs", tmp_path / "out.zip", "A. Body")
    assert not (tmp_path / "out.zip").exists()


def test_pictures_that_were_not_kept_cannot_be_submitted(packed, tmp_path):
    _, home, report = packed
    with pytest.raises(UserError, match="run it again with --fresh"):
        submission.submit(report, tmp_path / "runs", tmp_path / "out.zip", "A. Body")
    with pytest.raises(UserError, match="holds no results"):
        submission.submit(tmp_path / "none", home / "runs", tmp_path / "out.zip", "A. Body")
    with pytest.raises(UserError, match=r"a submission's name ends in \.zip"):
        submission.submit(report, home / "runs", tmp_path / "out.txt", "A. Body")


def test_runs_that_tables_leave_out_are_not_packed(packed, tmp_path):
    file, home, report = packed
    shutil.copytree(report, tmp_path / "report")
    store = Store(tmp_path / "report")
    (own,) = store.records
    older = dataclasses.replace(own, run_id="older", design="local_mlp", made={"training": "old"}, created="2000-01-01")
    store.add(older, [])
    out = submission.submit(store.folder, home / "runs", tmp_path / "out.zip", "A. Body")
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(out) as after:
        assert store.left_out and after.namelist() == before.namelist()
        assert any(name.startswith("runs/shown-") for name in after.namelist())


def test_a_record_has_the_hashes_of_its_checkpoint_and_pictures(packed):
    record = Store(packed[2]).records[0]
    assert set(record.predictions) == {"self", "cross"} and len(record.checkpoint) > 8
    one = {"self": np.zeros((1, 2, 2, 3), np.uint8)}
    assert predictions.hashes(one) != predictions.hashes({"self": one["self"] + 1})

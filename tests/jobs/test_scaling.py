"""Times of training steps: of every stage, held beside those by other numbers of GPUs."""

from __future__ import annotations

import json

import pytest

from i4d_bench.config import presets
from i4d_bench.jobs.scaling import scaling
from i4d_bench.types import UserError


def test_stages_are_timed_and_compared(cpu, tmp_path, capsys):
    out = tmp_path / "scaling.json"
    scaling(presets.smoke(), "local_adaln", 1, out, batch=2)
    content = json.loads(out.read_text(encoding="utf-8"))
    (own,) = content["measured"]
    assert own["ranks"] == 1 and own["environment"]["versions"]["torch"]
    assert [(r["phase"], r["images"], r["memory"]) for r in own["rows"]] == [("warm-up", 4, [0]), ("joint", 4, [0])]
    assert all(r["images_per_second"] == pytest.approx(4 / r["seconds"]) for r in own["rows"])

    faster = [{**r, "steps_per_second": 3.6 * r["steps_per_second"]} for r in own["rows"]]
    content["measured"].append({**own, "ranks": 4, "rows": faster})
    out.write_text(json.dumps(content), encoding="utf-8")
    scaling(presets.smoke(), "local_adaln", 1, out, batch=2)
    assert [m["ranks"] for m in json.loads(out.read_text(encoding="utf-8"))["measured"]] == [1, 4]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in printed[-4:]] == ["1", "4", "1", "4"] and printed[-4][-2:] == ["1.00", "1.00"]
    with pytest.raises(UserError, match="another design, preset or batch"):
        scaling(presets.smoke(), "local_adaln", 1, out, batch=4)
    (tmp_path / "notes.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="holds no times"):
        scaling(presets.smoke(), "local_adaln", 1, tmp_path / "notes.json")

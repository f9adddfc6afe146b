"""The dry run: prints, trains nothing, writes nothing; its estimates scale as they must."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from i4d_bench import cli
from i4d_bench.config import presets
from i4d_bench.config.experiment import Stage, World
from i4d_bench.config.override import override
from i4d_bench.heads.worlds import exported_head
from i4d_bench.jobs import forecast
from i4d_bench.jobs.forecast import Forecast, Measured, Phase, _explain, data_gib, phases, read
from i4d_bench.speed.cards import CARDS, H100, Card
from i4d_bench.train.footprint import Counter, Footprint, Work

TERA = 1e12
LARGE = Footprint(Work(2 * TERA, 6e9, 1.5e9), Work(4 * TERA, 12e9, 3e9), 200_000)
TINY = Card("tiny", "tiny", 13, 1000, 100.0, 50.0)


@pytest.fixture
def large() -> Forecast:
    """32 people in four parts, 1.5 GB each."""
    return Forecast((Phase("", Stage(1000, 512, 424, 32, 2), LARGE, 40_000_000),), 4, 3.0)


def test_twice_the_cards_take_half_the_hours(large):
    one, two, four = (large.hours(TINY, n) for n in (1, 2, 4))
    assert one and two and four
    assert one / two == pytest.approx(2 * forecast.EFFICIENCY) and two / four == pytest.approx(2)


def test_more_parts_take_less_memory(large):
    memory = [large.peak(1, parts) for parts in (1, 2, 4, 8)]
    assert memory == sorted(memory, reverse=True) and memory[0] - memory[1] == pytest.approx(
        2 * (memory[1] - memory[2])
    )
    assert large.peak(8, 1) < large.peak(1, 1)


def test_a_small_card_is_told_how_many_parts_fit(large):
    parts = large.fitting(TINY, 1)
    assert parts and parts > large.accumulate and large.peak(1, parts) <= TINY.usable < large.peak(1, parts - 1)
    assert large.fitting(replace(TINY, memory=4), 1) is None and large.hours(replace(TINY, memory=4), 1) is None


def test_people_that_cannot_be_divided_have_no_hours(large):
    assert large.hours(H100, 3) is None


def test_faster_cards_take_fewer_hours(large):
    hours = {card.name: large.hours(card, 1) for card in CARDS}
    assert hours["RTX 4090"] > hours["A100 80 GB"] > hours["H100"] > hours["H200"] > hours["B200"]


def test_a_measured_step_is_believed(large):
    measured = Measured("NVIDIA H100 80GB HBM3", {512: 2.0}, {512: 1.5}, {2: 0.8})
    known = replace(large, measured=measured)
    assert known.hours(H100, 1) == pytest.approx(2 * large.hours(H100, 1))
    assert known.hours(H100, 1) / known.hours(H100, 2) == pytest.approx(2 * 0.8)
    assert known.peak(1, 4) == pytest.approx(1.5 * large.peak(1, 4))


def test_records_are_read_where_there_are_some(tmp_path, monkeypatch):
    assert read(tmp_path) == Measured()
    rows = lambda s: [{"phase": p, "resolution": 32, "seconds": s, "memory": [2**30]} for p in ("warm-up", "joint")]  # noqa: E731
    h100 = {"gpu": {"name": "NVIDIA H100 80GB HBM3"}}
    measured = [{"ranks": n, "environment": h100, "rows": rows(s)} for n, s in ((1, 0.4), (2, 0.25))]
    (tmp_path / "scaling-paper-h100.json").write_text(
        json.dumps({"design": "local_adaln", "measured": measured}), encoding="utf-8"
    )
    (tmp_path / "other.json").write_text("[{}]", encoding="utf-8")
    (tmp_path / "scaling-paper-b200.json").write_text(
        json.dumps({"design": "static", "measured": measured}), encoding="utf-8"
    )
    monkeypatch.setattr(presets, "paper", presets.smoke)
    found = read(tmp_path)
    assert found.device == "NVIDIA H100 80GB HBM3" and found.efficiency == pytest.approx({1: 1.0, 2: 0.8})
    plain = presets.smoke()
    counted = Forecast(phases(Counter(plain, exported_head("procedural")), "local_adaln"), 1, data_gib(plain.world))
    again = replace(counted, measured=found)
    assert again.seconds(again.phases[-1], H100, 1, 1) == pytest.approx(0.4)
    assert again.memory(again.phases[-1], 1, 1) == pytest.approx(1.0)


def test_the_adversary_counts_in_the_stages_after_it_begins():
    stages = "[[4,32,16,2,2],[4,32,16,2,2]]"
    e = override(presets.smoke(), [f"train.stages={stages}", "train.loss.adversarial=0.1"])
    _, early, late = phases(Counter(e, exported_head("procedural")), "static")
    assert late.footprint.one.flops > early.footprint.one.flops


def test_a_rendered_worlds_bytes():
    world = World(resolution=64, train_identities=10, val_identities=1, test_identities=1, expressions=4, views=3)
    assert data_gib(world) == (10 * 12 + 2 * 15) * 64**2 * 5 / 2**30


def command(monkeypatch, capsys, folder, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["i4d-bench", "run", "--dry-run", *arguments])
    code = None
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_a_dry_run_prints_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    from i4d_bench.data import synthetic
    from i4d_bench.jobs import run as job

    never = lambda *_: pytest.fail("a dry run runs nothing")  # noqa: E731
    monkeypatch.setattr(job, "run", never)
    monkeypatch.setattr(synthetic, "rendered", never)
    code, out, _ = command(monkeypatch, capsys, tmp_path, "--preset", "smoke", "--designs", "local_adaln", "static")
    assert code is None and not list(tmp_path.iterdir())
    assert "estimated" in out and all(card.name in out for card in CARDS)
    assert "local_adaln: " in out and "static: " in out and "0.110 M" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--designs", "local_adalm"], "local_adaln"),
        (["--set", "train.lrr=1"], "train.lrr"),
        (["--set", "model.planes=5"], "model.planes=5 does not divide model.size=32"),
        (["--set", "model.sampling=ray"], "sampling plane"),
        (["--driver", "orcale"], "sliders, deep"),
        (["--data", "nowhere"], "nowhere"),
        (["--teacher", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    code, _, err = command(monkeypatch, capsys, tmp_path, "--preset", "smoke", *arguments)
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def test_what_nobody_measured_is_said_to_be_assumed(capsys):
    _explain(Measured("NVIDIA H200", {512: 1.0}, {512: 1.0}, {1: 1.0, 2: 0.98}), 4, lifted=False)
    said = capsys.readouterr().out
    assert "2 cards 98%" in said and "other numbers of cards at 90%, assumed" in said and "memory measured" in said

"""How figures look: labels that do not cover each other, families that are told apart in grey, pictures chosen by rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.text import Text

from i4d_bench.heads.base import REGIONS
from i4d_bench.report import curves, differences, dots, drawing, pairs, qualitative
from i4d_bench.report.drawing import HUES, OTHER_HUES, PAGE, SMALL, looks, spread
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store

NAMES = ("local_adaln", "local_mlp", "global_cross_attention", "flame_uv", "static")
FAMILY = {"local": "local", "global": "global", "flame": "parametric", "static": "control"}


@pytest.fixture
def store(tmp_path):
    """Five designs with curves, two people and a picture of each."""
    rng, made = np.random.default_rng(0), Store(tmp_path)
    region = np.zeros((2, 32, 32), np.uint8)
    region[:, 10:13, 8:24], region[:, 20:23, 12:20] = REGIONS.index("eyes"), REGIONS.index("mouth")
    face = lambda: rng.integers(0, 255, (2, 32, 32, 3), np.uint8)  # noqa: E731
    shown = {"source": face(), "driver": face(), "truth": face(), "region": region}
    for name in NAMES:
        rows = [
            {"run_id": name, "design": name, "seed": 0, "set": s, "sample": p, "identity": p, "driver": p, "metric": m,
             "value": rng.random(), "ok": True}
            for s in ("self", "cross") for p in range(2) for m in ("gap", "aed_true")
        ]  # fmt: skip
        curve = [{"step": s, "gap": rng.random()} for s in (25, 50, 100)]
        record = Record(name, name, FAMILY[name.split("_")[0]], "cpu", {}, {}, 0, "sliders", {"kind": "procedural", "hash": "0"},
                        "started", curve=curve, onset=curve[1])  # fmt: skip
        made.add(record, rows, shown | {"design": face()})
    return made


@pytest.mark.parametrize(
    "figure", [curves, differences, dots, qualitative], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_a_figure_is_as_wide_as_a_page_and_its_text_is_readable_there(figure, store, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure, "save", lambda figure, *_: drawn.append(figure))
    figure.draw(store, *(("local_adaln", pairs.pairs(store, "local_adaln")) if figure is differences else ()))
    assert drawn[0].get_figwidth() == PAGE
    texts = [t for t in drawn[0].findobj(Text) if t.get_text() and t.get_visible()]
    assert texts and min(t.get_fontsize() for t in texts) >= SMALL
    plt.close(drawn[0])


def test_every_design_has_a_panel_of_its_own_with_its_curve_and_its_familys_range(store, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "save", lambda figure, *_: drawn.append(figure))
    curves.draw(store)
    panels = {axis.get_title().replace("\n", " "): axis for axis in drawn[0].axes if axis.get_title()}
    assert list(panels) == ["local adaln", "local mlp", "global cross attention", "flame uv"], (
        "the control has no curve"
    )
    for record in (r for r in store.records if r.design != "static"):
        panel = panels[record.design.replace("_", " ")]
        gaps = [c["gap"] for c in record.curve]
        assert sum(np.array_equal(line.get_ydata(), gaps) for line in panel.lines) == 2, (
            "its seed and its mean, no other's"
        )
        assert len(panel.collections) == (record.family == "local"), "a range where there are two"
        assert f"{gaps[-1]:.1f} dB" in [t.get_text() for t in panel.texts]
    plt.close(drawn[0])


def test_a_difference_is_filled_where_it_is_significant_and_the_control_has_none(tmp_path, monkeypatch):
    rng, made, drawn = np.random.default_rng(0), Store(tmp_path), []
    better = {"local_adaln": 0.0, "local_mlp": 0.0, "global_cross_attention": 5.0, "flame_uv": -5.0, "static": -9.0}
    for name, mean in better.items():
        for seed in range(3):
            run, given = f"{name}-{seed}", ["the true coefficients"] if name == "flame_uv" else []
            rows = [{"run_id": run, "design": name, "seed": seed, "set": "cross", "sample": p, "identity": p, "driver": p,
                     "metric": "gap", "value": mean + rng.normal(), "ok": True} for p in range(8)]  # fmt: skip
            made.add(
                Record(
                    run, name, FAMILY[name.split("_")[0]], "cpu", {}, {}, seed, "sliders", {}, "started", sees=given
                ),
                rows,
            )
    monkeypatch.setattr(differences, "save", lambda figure, *_: drawn.append(figure))
    differences.draw(made, "local_adaln", pairs.pairs(made, "local_adaln"))
    above, below = drawn[0].axes
    names = lambda axis: [t.get_text() for t in axis.get_yticklabels()]  # noqa: E731
    filled = lambda axis: [m.get_markerfacecolor() != "white" for m in axis.lines if m.get_marker() == "o"]  # noqa: E731
    assert names(above) == ["global cross attention", "local mlp"] and filled(above) == [True, False]
    assert names(below) == ["flame uv"] and filled(below) == [True]
    plt.close(drawn[0])
    differences.draw(made, None, pairs.pairs(made, None))
    assert len(drawn) == 1


def test_labels_stand_apart_in_their_order_and_near_their_points():
    wanted = np.array([0.5, 0.5, 0.52, 0.9, 0.1])
    placed = spread(wanted, 0.1, 0, 1)
    assert np.diff(np.sort(placed)).min() >= 0.1 - 1e-9
    assert (np.argsort(placed, kind="stable") == np.argsort(wanted, kind="stable")).all()
    assert placed[3:] == pytest.approx([0.9, 0.1]) and placed[:3].mean() == pytest.approx(wanted[:3].mean(), abs=1e-3)
    assert spread(np.full(30, 0.5), 0.1, 0, 1) == pytest.approx(np.linspace(0, 1, 30)), "too many share the room"
    assert len(spread([], 0.1, 0, 1)) == 0


def test_families_differ_in_grey_and_designs_by_marker_and_dash():
    light = {f: np.dot(colors.to_rgb(hue), (0.299, 0.587, 0.114)) for f, hue in HUES.items() if f != "control"}
    assert np.diff(sorted(light.values())).min() > 0.1
    own = looks({f"local_{k}": "local" for k in range(8)} | {"global_a": "global"})
    assert len({(d["marker"], d["ls"]) for d in own.values() if d["fillstyle"] == "full"}) == 8
    assert own["global_a"]["fillstyle"] == "none"


def test_a_registered_design_looks_the_same_whoever_else_is_in_the_figure():
    alone, among = looks({"local_film": "local"}), looks({"a": "local", "local_adaln": "local", "local_film": "local"})
    assert alone["local_film"] == among["local_film"] and len({look["marker"] for look in among.values()}) == 3


def test_every_hue_is_seen_on_white():
    for hue in (*HUES.values(), *OTHER_HUES):
        straight = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colors.to_rgb(hue)]
        assert 1.05 / (np.dot(straight, (0.2126, 0.7152, 0.0722)) + 0.05) >= 3, hue


def test_unknown_families_have_looks_of_their_own():
    drawn = looks({"local_adaln": "local", "a": "hybrid", "b": "hybrid", "c": "neural", "d": ""})
    assert len({(d["color"], d["marker"]) for d in drawn.values()}) == 5
    hues = [drawn[name]["color"] for name in ("local_adaln", "a", "c", "d")]
    assert len(set(hues)) == 4


def test_pictures_show_the_best_and_the_worst_of_a_family_and_the_reference():
    merit = {f"{f}_{k}": -0.1 * k for f in ("local", "flame") for k in range(4)}
    families = {d: d.partition("_")[0] for d in merit} | {"static": "control"}
    assert qualitative.chosen(families, merit) == ["local_0", "local_3", "flame_0", "flame_3"]
    assert qualitative.chosen(families, merit, "local_2") == ["local_2", "local_0", "flame_0", "flame_3"]
    assert qualitative.chosen(families, merit, "local_0") == ["local_0", "local_1", "flame_0", "flame_3"]
    assert "static" in qualitative.chosen(families, merit | {"static": 0.0}, "static")
    assert qualitative.chosen(families, {}) == list(families)[:6]


def test_designs_are_chosen_by_the_gap_and_cases_are_named_in_words(store, monkeypatch):
    gaps = store.measured.intervals("cross", "gap")
    assert qualitative.merits(store.measured) == {d: i.mean for d, i in gaps.items()}
    told = qualitative.rule(store.measured, "local_adaln")
    assert "driving gap" in told and "the reference, local adaln," in told
    drawn = []
    monkeypatch.setattr(qualitative, "save", lambda figure, *_: drawn.append(figure))
    qualitative.draw(store, "local_adaln")
    texts = [t.get_text() for t in drawn[0].findobj(Text)]
    assert "median" in texts and not any("rank" in t or "100" in t for t in texts)
    plt.close(drawn[0])


def test_cases_are_the_stored_ones_nearest_the_median_and_the_worst_decile():
    error = pd.Series(np.arange(96) / 96)
    found = qualitative.cases([error, error], 8)  # stored: samples 0, 13, 27, 40, 54, …
    assert [(c.index, c.rule) for c in found] == [(4, "median"), (6, "worst decile")]
    assert [c.rule for c in qualitative.cases([], 8)] == ["first"]


def test_a_crop_holds_its_region_and_lies_within_the_picture():
    region = np.zeros((32, 32), np.uint8)
    region[28:31, 0:9] = REGIONS.index("mouth")
    box = qualitative.crop(region, "mouth")
    assert box is not None and (box.of(region) == REGIONS.index("mouth")).sum() == 27
    assert (
        box.of(region).shape == (box.height, box.width) and box.width == 2 * box.height
    ) or box.width == box.height * 2 - 1
    assert qualitative.crop(region, "eyes") is None


def test_names_are_words():
    assert drawing.short("local_adaln") == "adaln" and drawing.plain("flame_uv@width=16") == "flame uv\n@ width=16"

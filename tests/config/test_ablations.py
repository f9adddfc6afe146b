"""Designs with settings in their names, and the named ablations made of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import ROOT

import variants
from i4d_bench import cli
from i4d_bench.config import presets
from i4d_bench.config.ablations import RATES, STARTS, ablation, ablations
from i4d_bench.config.experiment import digest
from i4d_bench.config.override import override
from i4d_bench.jobs.names import designs, folder_name
from i4d_bench.report import search
from i4d_bench.results.store import Store
from i4d_bench.types import UserError
from variants.base import defaults, parse

ABLATIONS = ablations()
OWN = [name for name in ABLATIONS if name != "finals"]
"""Those that bring their rows."""


def test_an_entry_is_a_design_and_its_settings():
    assert parse("local_adaln") == ("local_adaln", {})
    assert parse("global_cross_attention@layers=4,source=false") == (
        "global_cross_attention",
        {"layers": 4, "source": False},
    )
    assert len(variants.create("global_cross_attention@layers=4").layers) == 4
    with pytest.raises(UserError, match="native or SETTING=VALUE"):
        parse("local_adaln@wide")
    with pytest.raises(UserError, match="motion_basis"):
        variants.create("local_adaln@motion_bases=8")


def test_what_stands_in_the_name_is_above_the_presets_overrides():
    e = dataclasses.replace(presets.smoke(), overrides={"local_adaln": {"hidden": 8, "w_std": 0.5, "lr": 0.1}})
    assert e.settings("local_adaln@hidden=16") == {"hidden": 16, "w_std": 0.5, "lr": 0.1}
    assert e.fusion("local_adaln@hidden=16").W1.out_features == 16


@pytest.mark.parametrize("name", [n for n in variants.names() if variants.design(n).native])
def test_published_sizes_can_be_built(name):
    count = lambda fusion: sum(p.numel() for p in fusion.parameters())  # noqa: E731
    assert count(variants.create(f"{name}@native")) != count(variants.create(name))


def test_a_design_without_published_sizes_says_so():
    with pytest.raises(UserError, match="local_adaln has no published sizes"):
        variants.create("local_adaln@native")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_an_ablation_is_one_experiment(name, preset):
    """All its rows can be built, share one backbone, and have runs and a folder of their own."""
    plain = presets.preset(preset)
    e = ablation(name, plain)
    assert designs(e) == list(ABLATIONS[name].designs) and "static" in e.designs
    assert len({digest([d.partition("@")[0], e.resolved(d)]) for d in e.designs}) == len(e.designs)
    assert folder_name(e).startswith(f"ablation-{name}-{preset}")
    assert folder_name(e).removeprefix(f"ablation-{name}-") == folder_name(plain)


def test_a_run_that_is_the_same_has_the_same_name_in_an_ablation():
    plain = presets.cpu()
    e = ablation("space", plain)
    assert (e.shared(), e.resolved("local_adaln")) == (plain.shared(), plain.resolved("local_adaln"))


def test_the_search_tries_every_learned_design_alike():
    tried = [parse(d) for d in ABLATIONS["search"].designs if d != "static"]
    settings = {name: [s for n, s in tried if n == name] for name, _ in tried}
    assert set(settings) == {name for name in variants.names() if "init_scale" in defaults(name)} >= set(presets.TUNED)
    assert len(settings["local_adaln"]) == 8
    assert all(s == settings["local_adaln"] for name, s in settings.items() if "cross_scale" not in defaults(name))
    deaf = [s for s in settings["global_triplane_attention"] if s not in settings["local_adaln"]]
    assert deaf == [{"lr": lr, "init_scale": 1.0, "cross_scale": 0.0} for lr in RATES], "Portrait4D's start"


def test_finals_are_the_arms_that_a_search_names():
    best = ("local_mlp@lr=0.001,init_scale=0.0", "local_mlp@lr=0.003,init_scale=0.0")
    e = ablation("finals", presets.gpu(), best)
    assert e.designs == (*best, "static") and e.train.stages == presets.gpu().train.stages
    assert folder_name(e).startswith("ablation-finals-gpu-")
    assert ablation("search", presets.gpu()).train.stages[0].steps == 900
    with pytest.raises(UserError, match=r"finals.txt"):
        ablation("finals", presets.gpu())


def test_a_longer_budget_is_the_designs_own():
    e = ablation("budget", presets.smoke())
    assert [e.stages(d)[0].steps for d in e.designs if d.startswith("local_adaln")] == [3, 6, 12]
    assert e.stages("static") == e.train.stages and e.fusion("local_adaln@budget=2") is not None


def test_the_gpu_preset_has_what_the_stored_finals_found_best():
    """The designs with a parametric head are whole on H200s alone."""
    found = {}
    for card in ("h100", "h200"):
        stored = Store(ROOT / f"reports/published/ablation-finals-gpu-{card}-procedural-image")
        found |= {name: search.best(runs) for name, runs in search.arms(stored).items()}
    assert found == presets.TUNED
    overrides = presets.gpu().overrides
    assert {n: (o["lr"], o["init_scale"]) for n, o in overrides.items()} == {
        n: (lr, STARTS[start]["init_scale"]) for n, (lr, start) in presets.TUNED.items()
    }
    assert overrides["local_adaln"]["w_std"]


def test_designs_stand_beside_an_ablations_own_rows_and_are_searched_alone():
    beside = ablation("space", presets.cpu(), ("local_mlp", "local_adaln"))
    assert beside.designs == ("local_mlp", "local_adaln", "local_spatial", "local_nobasis", "static")
    assert folder_name(beside) == folder_name(ablation("space", presets.cpu()))
    alone = ablation("search", presets.cpu(), ("local_mlp@hidden=8",))
    assert [parse(d)[1].get("hidden") for d in alone.designs] == [8] * 8 + [None]
    assert set(designs(alone)) == set(alone.designs) and alone.designs[-1] == "static"
    with pytest.raises(UserError, match="flame_binding cannot be searched: it has no setting init_scale"):
        ablation("search", presets.cpu(), ("flame_binding",))


def test_presets_may_know_designs_that_are_not_there(monkeypatch):
    """Somebody's copy without one of ours runs; a design that the user names must be there."""
    monkeypatch.setattr("variants.base._REGISTRY", {n: variants.design(n) for n in ("local_mlp", "static")})
    for name in ("cpu", "gpu", "smoke"):
        e = dataclasses.replace(presets.preset(name), designs=("all",))
        assert designs(e) == ["local_mlp", "static"]
    ablations()
    with pytest.raises(UserError, match="no fusion design 'local_adaln'"):
        designs(dataclasses.replace(presets.cpu(), designs=("local_adaln",)))


def test_an_override_names_a_design_that_is_there():
    with pytest.raises(UserError, match=r"no fusion design 'local_adalm'.* did you mean local_adaln"):
        override(presets.cpu(), ["overrides.local_adalm.hidden=8"])
    with pytest.raises(UserError, match="name one of its settings"):
        override(presets.cpu(), ["overrides.local_adaln=8"])


def test_unknown_ablations_are_named():
    with pytest.raises(UserError, match="motion-dim"):
        ablation("motion-dims", presets.cpu())


@pytest.mark.parametrize("wrong", ["xyz", "q", "motion"])
def test_the_nearest_three_are_named_and_no_more(wrong):
    """Also where nothing is near: whole lists are what `i4d-bench list` is for."""
    for call in (
        lambda: ablation(wrong, presets.cpu()),
        lambda: presets.preset(wrong),
        lambda: override(presets.cpu(), [f"train.{wrong}=1"]),
    ):
        with pytest.raises(UserError, match="did you mean") as told:
            call()
        assert str(told.value).partition("did you mean")[2].count(",") <= 2


def test_ablations_are_listed_with_their_question(capsys):
    cli.list_("ablations")
    assert "How wide must the motion basis be?" in capsys.readouterr().out


@pytest.mark.parametrize("width", [8, 64])
def test_the_motion_basis_is_the_first_channels_of_m(width, tiny):
    """Of a backbone with more; what lies behind them has no effect. A backbone with fewer is refused."""
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(1, seed=2)
    fusion = variants.create(f"local_adaln@motion_basis={width}")
    if width > identity.m.shape[-1]:
        with pytest.raises(UserError, match="64 channels"):
            fusion.prepare(identity, source)
        return
    other = dataclasses.replace(
        identity, m=torch.cat([identity.m[..., :width], torch.randn_like(identity.m[..., width:])], -1)
    )
    a, b = (fusion.animate(fusion.prepare(i, source), driving) for i in (identity, other))
    assert torch.equal(a.colors, b.colors) and a.colors.shape == identity.canonical.colors.shape

"""A report's page and the site, as a reader meets them: in a browser, from the disk, at a desk and on a phone."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.pages import chromium, opened
from PIL import Image

from i4d_bench.data.video.files import write_video
from i4d_bench.errors import UserError
from i4d_bench.play.ply import write_ply
from i4d_bench.play.splats import change, rest
from i4d_bench.report import content
from i4d_bench.report.drawing import HUES
from i4d_bench.report.web import page as pages
from i4d_bench.report.web import site
from i4d_bench.report.web.avatars import _packed, avatars, clips
from i4d_bench.report.web.pictures import sheet
from i4d_bench.report.web.table import Head, row, table
from i4d_bench.results import submissions
from i4d_bench.results.evidence import Reproduction, keep_check, keep_reproduction
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.types import Gaussians

DESIGNS = {"local_a": 24.0, "local_b": 30.0, "global_c": 27.0, "flame_d": 33.0, "static": 21.0}
"""PSNR."""
FAMILIES = {"flame": "parametric", "static": "control"}
RNG = np.random.default_rng(0)
IMAGES = {
    name: RNG.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8) for name in ("source", "driver", "truth", *DESIGNS)
}
KILOBYTES = 200
"""What a page weighs without its pictures and figures."""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three seeds of five designs, of which one sees more than the others and one is the control."""
    store = Store(tmp_path_factory.mktemp("reports") / "tiny")
    for seed in range(3):
        for name, psnr in DESIGNS.items():
            rows = [
                {"run_id": f"{name}-{seed}", "design": name, "seed": seed, "set": s, "sample": p, "identity": p, "driver": p,
                 "metric": m, "value": value + RNG.normal(), "ok": True}
                for s in ("cross",) for p in range(4) for m, value in (("psnr", psnr), ("ssim", psnr / 40))
            ]  # fmt: skip
            start = name.partition("_")[0]
            record = Record(run_id=f"{name}-{seed}", design=name, family=FAMILIES.get(start, start), preset="cpu", seed=seed,
                            overrides={}, config={"</script>": 1}, driver="sliders", status="started",
                            data={"kind": "procedural", "hash": "0123"}, curve=[{"step": 100, "gap": 1.0}], notes=["<b>said</b>"],
                            sees=["the truth"] if start == "flame" else [])  # fmt: skip
            shared = {k: IMAGES[k] for k in ("source", "driver", "truth")}
            store.add(record, rows, shared | {"design": IMAGES[name]})
    pages.write(store.folder, content(store.folder))
    return store.folder


@pytest.fixture
def page(browser, folder):
    with opened(browser, folder / "index.html") as shown:
        yield shown


def names(table, block="fair"):
    return [text.strip() for text in table.locator(f'tbody[data-block="{block}"] th.name').all_inner_texts()]


def decoded(url: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, False), (390, True)])
def test_a_page_fits_its_screen_and_asks_for_nothing_beside_itself(browser, folder, width, dark):
    with opened(browser, folder / "index.html", width, dark) as page:
        page.locator("#pictures .strip button").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_text("Columns", exact=True).first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("ul.notes").inner_text().count("<b>said</b>") == 1, "text stays text"


def contrast(a, b) -> float:
    """As WCAG 2 has it, of two colours with 8 bits per channel."""
    straight = [
        np.where((c := np.asarray(v) / 255) <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for v in (a, b)
    ]
    light = sorted(float(v @ (0.2126, 0.7152, 0.0722)) + 0.05 for v in straight)
    return light[1] / light[0]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_familys_mark_has_the_hue_of_the_figures_and_is_seen(browser, folder, dark):
    with opened(browser, folder / "index.html", 1400, dark) as page:
        for family in ("local", "global", "parametric", "control"):
            mark = page.locator(f"#table-0 tbody .family.{family}").first
            drawn = np.array(Image.open(io.BytesIO(mark.screenshot(scale="device"))).convert("RGB"), int)
            hue = tuple(int(HUES[family][k : k + 2], 16) for k in (1, 3, 5))
            assert mark.evaluate("m => getComputedStyle(m).color") == f"rgb{hue}"
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            paper = [int(v) for v in re.findall(r"\d+", paper)]
            middle = drawn[len(drawn) // 2, drawn.shape[1] // 2]
            assert contrast(middle, paper) >= 3
            assert dark or np.abs(middle - hue).max() <= 2


def test_rows_are_ranked_within_their_block(page):
    table = page.locator("#table-0")
    assert names(table) == ["local_a", "local_b", "global_c"], "in the report's order, until a reader asks for another"
    head = table.locator("th", has_text="PSNR").first
    head.get_by_role("button").click()
    assert names(table) == ["local_b", "global_c", "local_a"], "the better end comes first"
    assert (names(table, "privileged"), names(table, "control")) == (["flame_d"], ["static"])
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").press("Enter")
    assert names(table) == ["local_a", "global_c", "local_b"] and head.get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("width", [390, 1400])
def test_heads_and_names_stay_where_a_long_table_is_scrolled(browser, tmp_path, width):
    heads = [Head(f"column {k}", group="self" if k < 6 else "cross") for k in range(12)]
    rows = [row(f"local_design_{r}", [{"v": 1000 * r + k} for k in range(12)], "local") for r in range(13)]
    shown = {"title": "long", "facts": {}, "notes": [], "figures": {}, "runs": {}}
    with opened(
        browser, pages.write(tmp_path, shown | {"tables": [table("Long", "rows", heads, rows)]}), width
    ) as page:
        page.set_viewport_size({"width": width, "height": 400})
        page.locator("#table-0 .scroll").evaluate("s => s.scrollTo({top: 100, left: 40, behavior: 'instant'})")
        box = lambda what: page.locator(f"#table-0 {what}").first.bounding_box()  # noqa: E731
        outer = box(".scroll")
        assert page.locator("#table-0 .scroll").evaluate("s => s.scrollTop") == 100
        assert box("thead")["y"] == pytest.approx(outer["y"], abs=1.5)
        assert box("thead .name")["x"] == box("tbody .name")["x"] == pytest.approx(outer["x"], abs=1.5)
        corner = [outer["x"] + 20, outer["y"] + 12]
        assert page.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('th').className", corner) == "name"


def test_a_table_that_goes_on_fades_at_its_edge_until_its_end_is_in_sight(browser, folder):
    with opened(browser, folder / "index.html", 390) as page:
        scroll = page.locator("#table-0 .scroll")
        fades = lambda: scroll.evaluate("s => getComputedStyle(s).maskImage") != "none"  # noqa: E731
        page.wait_for_function("document.querySelector('#table-0 .scroll.more')")
        assert fades()
        scroll.evaluate("s => s.scrollTo({left: s.scrollWidth, behavior: 'instant'})")
        page.wait_for_function("!document.querySelector('#table-0 .scroll.more')")
        assert not fades()


def test_rows_are_found_by_name_and_by_family(page):
    table = page.locator("#table-0")
    table.get_by_label("Find").fill("LOCAL")
    assert names(table) == ["local_a", "local_b"] and "2 of 5 designs" in table.inner_text()
    table.get_by_label("Find").fill("")
    table.get_by_role("combobox", name="family").select_option("global")
    assert names(table) == ["global_c"] and names(table, "control") == []


def test_failed_measurements_say_what_they_count_as(browser, folder, tmp_path):
    """PSNR has no worst value: without a number a sample is left out."""
    (one,) = (r for r in Store(folder).records if r.run_id == "local_a-0")
    rows = [
        {"run_id": one.run_id, "design": one.design, "seed": 0, "set": "cross", "sample": p, "identity": p, "driver": p,
         "metric": m, "value": np.nan if p == 1 else 0.5, "ok": p != 1}
        for p in range(4) for m in ("psnr", "csim_mobileface")
    ]  # fmt: skip
    store = Store(tmp_path / "failed")
    store.add(one, rows)
    shown = content(store.folder)
    assert "local_a: failed measurements cross psnr 1 (left out)." in shown["notes"]
    assert "local_a: failed measurements cross csim_mobileface 1 (counted at the worst value)." in shown["notes"]
    with opened(browser, pages.write(store.folder, shown)) as page:
        tips = page.locator("#table-0 td[data-tip]").evaluate_all("cells => cells.map((c) => c.dataset.tip)")
    assert any("3 samples, 1 failed (left out)" in tip for tip in tips)
    assert any("4 samples, 1 failed (counted at the worst value)" in tip for tip in tips)


def test_differences_open_with_rows_where_a_set_has_no_gap(browser, folder, tmp_path):
    """As cross-reenactment of real people, of which no true frame is known."""
    store = Store(tmp_path / "video")
    for one in Store(folder).records:
        store.add(one, [
            {"run_id": one.run_id, "design": one.design, "seed": one.seed, "set": s, "sample": p, "identity": p, "driver": p,
             "metric": m, "value": RNG.normal(), "ok": True}
            for s, m in (("self", "gap"), ("cross", "csim_mobileface")) for p in range(3)
        ])  # fmt: skip
    with opened(browser, pages.write(store.folder, content(store.folder))) as page:
        table = page.locator("section[data-table]", has=page.locator("h2", has_text="Differences"))
        assert names(table) == ["local_b", "global_c"]
        assert table.get_by_role("combobox", name="metric").input_value() == "CSIM (MobileFace) ↑"


def test_columns_are_chosen(page):
    table = page.locator("#table-0")
    assert not table.locator("th", has_text="SSIM").count()
    table.get_by_text("Columns", exact=True).click()
    table.get_by_label("SSIM ↑").first.check()
    assert table.locator("thead th", has_text="SSIM").count() == 1
    page.keyboard.press("Escape")
    assert not table.get_by_label("SSIM ↑").first.is_visible()


def test_intervals_show_beneath_the_pointer_and_in_cells(page, folder):
    table, wanted = page.locator("#table-0"), content(folder)["tables"][0]
    k = next(k for k, c in enumerate(wanted["columns"]) if c["head"] == "PSNR ↑")
    row = next(r for r in wanted["rows"] if r["name"] == "local_b")
    interval = f"{row['cells'][k]['lo']:.2f} to {row['cells'][k]['hi']:.2f}"
    cell = table.locator("tr", has_text="local_b").locator("td[data-tip]", has_text=f"{row['cells'][k]['v']:.2f}").first
    cell.hover()
    assert f"95% interval: {interval}" in page.get_by_role("tooltip").inner_text() and "12 samples" in cell.inner_text()
    table.get_by_label("intervals in cells").check()
    assert table.locator("td small", has_text=interval).count() == 1


def test_pictures_flip_and_their_error_is_that_to_the_truth(page):
    viewer = page.locator("#pictures")
    stage, said = viewer.locator(".stage"), viewer.locator(".caption")

    def pixels():
        return decoded(stage.locator("canvas").evaluate("c => c.toDataURL()"))

    error = lambda name, k: np.abs(IMAGES[name][k].astype(float) - IMAGES["truth"][k]).mean() / 255  # noqa: E731
    viewer.get_by_role("button", name="global_c").click()
    said.get_by_text(f"{error('global_c', 0):.4f}").wait_for()
    assert np.array_equal(pixels(), IMAGES["global_c"][0])
    viewer.get_by_role("button", name="Next sample").click()
    said.get_by_text(f"{error('global_c', 1):.4f}").wait_for()
    assert np.array_equal(pixels(), IMAGES["global_c"][1])
    stage.focus()
    page.keyboard.down("t")
    said.get_by_text("truth").wait_for()
    assert np.array_equal(pixels(), IMAGES["truth"][1])
    page.keyboard.up("t")
    page.keyboard.press("ArrowRight")
    said.get_by_text("flame_d").wait_for()
    page.keyboard.press("e")
    page.locator('button[aria-pressed="true"]', has_text="Error map").wait_for()
    assert not np.array_equal(pixels(), IMAGES["flame_d"][1])
    viewer.get_by_label("zoom").fill("4")
    assert stage.evaluate("s => s.scrollWidth / s.clientWidth") == pytest.approx(4, abs=0.05)


def test_names_beneath_pictures_break_between_words_alone(browser, tmp_path):
    named = ("local_part_blendshapes", "global_interleaved_attention")
    designs = [{"name": n, "seed": 0, "data": "d", "family": "local", "sheet": sheet(IMAGES["truth"])} for n in named]
    shared = {"d": {k: sheet(IMAGES[k]) for k in ("source", "driver", "truth")}}
    shown = {"title": "long names", "facts": {}, "notes": [], "tables": [], "figures": {}, "runs": {}}
    sizes = {"count": 3, "height": 16, "width": 16}
    start = pages.write(tmp_path, shown | {"pictures": sizes | {"shared": shared, "designs": designs}})
    with opened(browser, start, 390) as page:
        page.locator("#pictures .strip b", has_text="interleaved").wait_for()
        lines = """() => [...document.querySelectorAll('#pictures .strip b')].flatMap((b) => [...b.childNodes])
            .filter((n) => n.nodeType === Node.TEXT_NODE)
            .map((n) => { const r = document.createRange(); r.selectNode(n); return [n.data, r.getClientRects().length]; })"""
        assert [word for word, count in page.evaluate(lines) if count > 1] == []


def test_seeds_may_have_different_designs(browser, tmp_path):
    """Every picture of the strip stands above its own name, and what is chosen is one that the seed has."""
    runs = [("local_a", 0), ("local_b", 0), ("local_b", 1), ("global_c", 1)]
    designs = [
        {"name": n, "seed": s, "data": "d", "family": "local", "sheet": sheet(IMAGES[n] // (1 + s))} for n, s in runs
    ]
    shared = {"d": {k: sheet(IMAGES[k]) for k in ("source", "driver", "truth")}}
    shown = {"title": "seeds", "facts": {}, "notes": [], "tables": [], "figures": {}, "runs": {}}
    sizes = {"count": 3, "height": 16, "width": 16}
    start = pages.write(tmp_path, shown | {"pictures": sizes | {"shared": shared, "designs": designs}})
    with opened(browser, start) as page:
        strip = page.locator("#pictures .strip button")
        strip.get_by_text("local_a").wait_for()
        page.get_by_label("Seed").select_option("1")
        strip.get_by_text("global_c").wait_for()
        assert strip.all_inner_texts() == ["source", "driver", "truth", "local_b", "global_c"]
        for name, button in zip(("local_b", "global_c"), strip.all()[3:], strict=True):
            assert np.array_equal(
                decoded(button.locator("canvas").evaluate("c => c.toDataURL()")), IMAGES[name][0] // 2
            )
        assert page.locator('#pictures .strip [aria-pressed="true"]').inner_text() == "local_b"
        assert "local_b" in page.locator("#pictures .caption").inner_text()


def test_a_row_says_where_it_comes_from_and_how_to_make_it_again(page, folder):
    page.locator("#table-0").get_by_role("button", name="flame_d").press("Enter")
    dialog = page.get_by_role("dialog")
    told = dialog.inner_text()
    assert f"i4d-bench reproduce {folder.as_posix()} --designs flame_d" in told and "Sees the truth" in told
    assert all(f"flame_d-{seed}" in told for seed in range(3))
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "flame_d", "the focus goes back to the row"


def test_what_is_shown_is_saved_with_its_intervals(page):
    table = page.locator("#table-0")
    table.get_by_label("Find").fill("local_b")
    with page.expect_download() as saved:
        table.get_by_role("button", name="CSV").click()
    head, line, end = saved.value.path().read_text(encoding="utf-8").split("\n")
    assert (
        head.startswith("name,block,")
        and "cross PSNR,cross PSNR_low,cross PSNR_high" in head
        and line.startswith("local_b,fair,")
        and not end
    )


def test_every_control_and_picture_has_a_name(page):
    unnamed = """() => [...document.querySelectorAll('button, select, input, img, [role=img], [role=region], a')]
        .filter(e => !(e.getAttribute('aria-label') || e.alt || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"""
    assert page.evaluate(unnamed) == []


def test_a_page_without_pictures_stays_small(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert len(re.sub(r'"data:image/[^"]*"', "", text).encode()) < 1000 * KILOBYTES
    assert '</script>": 1' not in text and text.count("</script>") == len(pages.SCRIPTS) + 1


def test_pictures_are_kept_to_the_last_bit():
    assert np.array_equal(np.split(decoded(sheet(IMAGES["truth"])), 3, axis=1), IMAGES["truth"])


def test_avatars_and_clips_of_a_report_are_shown(browser, tmp_path):
    """Red Gaussians above blue ones, seen from the front and from behind; without avatars a page carries no viewer."""
    upper = torch.arange(100) < 50
    means = (
        0.2 * torch.from_numpy(RNG.normal(size=(1, 100, 3))).float()
        + torch.where(upper, 0.3, -0.3)[:, None] * torch.eye(3)[1]
    )
    colors = torch.where(upper[:, None], torch.eye(3)[0], torch.eye(3)[2])[None]
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 100, 4)
    cloud = Gaussians(means, quats, torch.full((1, 100, 3), 0.05), torch.full((1, 100), 0.99), colors)
    write_ply(tmp_path / "avatars" / "cloud.ply", cloud)
    for name in ("turning", "talking"):
        write_video(tmp_path / "clips" / f"{name}.webm", [np.full((16, 32, 3), k, np.uint8) for k in range(50)], 25.0)
    shown = {"title": "moving", "facts": {}, "notes": [], "tables": [], "figures": {}, "runs": {}}
    green = torch.where(upper[:, None], torch.eye(3)[1], torch.eye(3)[2])[None]
    turned, step = change(cloud, dataclasses.replace(cloud, colors=green))
    face = rest(cloud) | {"names": np.array(["smile"]), "change": turned[None], "step": step[None]}
    own = [*avatars(Store(tmp_path), {}), _packed("with a face", face)]
    moving = {"avatars": own, "clips": clips(Store(tmp_path), {})}
    with opened(browser, pages.write(tmp_path, shown | moving)) as page:
        page.get_by_role("button", name="Play all in step").click()
        page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.currentTime > 0.2)")
        page.get_by_role("button", name="Stop all").click()
        assert page.evaluate("[...document.querySelectorAll('video')].map(v => v.paused)") == [True, True]
        page.get_by_role("button", name="Show in 3D").click()
        canvas = page.get_by_role("img", name="cloud, 100 Gaussians")

        def hues(first=0):
            with Image.open(io.BytesIO(canvas.screenshot())) as image:
                drawn = np.asarray(image.convert("RGB")).astype(int)
            upper, lower = np.split(drawn[: len(drawn) // 2 * 2], 2)
            return (upper[..., first] - upper[..., 2]).max() > 150 and (lower[..., 2] - lower[..., 0]).max() > 150

        waited = iter(range(50))
        while not hues():
            assert next(waited, None) is not None, "nothing is drawn"
            page.wait_for_timeout(100)
        page.get_by_role("slider", name="turn").fill("180")
        page.wait_for_timeout(300)
        assert hues() and not page.get_by_role("slider", name="smile").count()
        page.get_by_label("Avatar", exact=True).select_option("with a face")
        page.get_by_role("slider", name="smile").fill("1")
        canvas = page.get_by_role("img", name="with a face, 100 Gaussians")
        while not hues(first=1):
            assert next(waited, None) is not None, "the slider changes nothing"
            page.wait_for_timeout(100)
    assert "SPLAT" not in pages.write(tmp_path, shown).read_text(encoding="utf-8")


def test_of_avatars_that_are_chosen_quickly_the_last_is_shown(browser, tmp_path):
    """The first one's numbers come late."""
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0])
    clouds = [
        Gaussians(torch.zeros(1, n, 3), quats.expand(1, n, 4), torch.full((1, n, 3), 0.05), torch.ones(1, n), torch.ones(1, n, 3))
        for n in (10, 20, 30)
    ]  # fmt: skip
    turned, step = change(clouds[1], clouds[1])
    smile = {"names": np.array(["smile"]), "change": turned[None], "step": step[None]}
    stored = [
        _packed("first", rest(clouds[0])),
        _packed("late", rest(clouds[1]) | smile),
        _packed("last", rest(clouds[2])),
    ]
    shown = {"title": "three", "facts": {}, "notes": [], "tables": [], "figures": {}, "runs": {}, "avatars": stored}
    with opened(browser, pages.write(tmp_path, shown)) as page:
        page.get_by_role("button", name="Show in 3D").click()
        page.get_by_role("img", name="first, 10 Gaussians").wait_for()
        page.evaluate("""() => {
            const read = Response.prototype.arrayBuffer;
            Response.prototype.arrayBuffer = async function () {
                const found = read.call(this);
                if (window.late) await new Promise((done) => setTimeout(done, 300));
                return found;
            };
        }""")
        page.evaluate("window.late = true")
        page.get_by_label("Avatar", exact=True).select_option("late")
        page.evaluate("window.late = false")
        page.get_by_label("Avatar", exact=True).select_option("last")
        page.wait_for_timeout(600)
        assert page.locator("#avatars canvas").get_attribute("aria-label") == "last, 30 Gaussians"
        assert not page.get_by_role("slider", name="smile").count()


def test_a_site_leads_to_every_report_and_changes_none(browser, folder, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    site.write(folder.parent, tmp_path / "site")
    (tmp_path / "site" / "old.html").touch()
    start = site.write(folder.parent, tmp_path / "site")
    assert (start.parent / ".nojekyll").exists() and not (start.parent / "old.html").exists()
    with opened(browser, start, 390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("link", name="tiny").get_attribute("href") == "tiny/index.html"
        card = page.get_by_role("listitem").inner_text()
        assert all(said in card for said in ("procedural", "driver sliders", "designs 5", "seeds 0, 1, 2"))
    with opened(browser, start.parent / "tiny" / "index.html") as page:
        assert page.get_by_role("link", name="i4d_bench").get_attribute("href") == "../index.html"
        assert "local_b" in names(page.locator("#table-0"))
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_tiers_of_evidence_stand_apart(browser, folder, tmp_path):
    """A report of which one design agreed when it was last trained again, one of which all did, a submission, and what papers
    print."""
    reports, others = tmp_path / "reports", tmp_path / "others"
    runs = {r.design: r.run_id for r in Store(folder).records}
    for name in ("partly", "wholly"):
        shutil.copytree(folder, reports / name)
        for year, agreed in ((2025, DESIGNS), (2026, DESIGNS if name == "wholly" else ["static"])):
            rows = [{"design": d, "verdict": "agrees" if d in agreed else "differs"} for d in DESIGNS]
            keep_reproduction(reports / name, Reproduction("h100", "0123", f"{year}-01-01T00:00:00+00:00", runs, rows))
    (reports / site.REPORTED).write_text("method,set,metric,value,note,source\nGAGAvatar,self,LPIPS,0.1,,arXiv 1\n")
    shutil.copytree(folder, tmp_path / "theirs")
    theirs = Store(tmp_path / "theirs")
    for r in theirs.records:
        theirs.add(dataclasses.replace(r, created="2026-01-01"), theirs.samples_of(r).to_dict("records"))
    for name, of in (("theirs.zip", theirs.folder), ("copied.zip", folder)):
        inside = {f"runs/{p.name}": p for p in store_files(of)}
        submissions.pack(others / name, inside, "A. Body", "https://x.org")
    with pytest.raises(UserError, match="was not checked; check it first"):
        site.write(reports, tmp_path / "site", others)
    keep_check(others / "copied.zip", "0123", [])
    keep_check(others / "theirs.zip", "0123", [])
    with pytest.raises(UserError, match=r"copied.zip holds .*, which is a run of .*: it was not trained by others"):
        site.write(reports, tmp_path / "site", others)
    (others / "copied.zip").unlink()
    with opened(browser, site.write(reports, tmp_path / "site", others)) as page:
        found = {
            s.locator("h2").inner_text(): s.get_by_role("link").all_inner_texts() for s in page.locator("section").all()
        }
    assert found == {
        "Reproduced": ["wholly"],
        "Published here": ["partly"],
        "Submitted": ["submitted/theirs"],
        "From papers": ["papers"],
    }
    for name, said in (
        ("partly", "static (h100, 0123)"),
        ("submitted/theirs", "submitted by A. Body https://x.org"),
        ("papers", "GAGAvatar"),
    ):
        with opened(browser, tmp_path / "site" / name / "index.html") as page:
            assert said in page.inner_text("body")
    (others / "theirs.zip").write_bytes(b"other")
    with pytest.raises(UserError, match="is not the file that was checked"):
        site.write(reports, tmp_path / "site", others)
    keep_check(others / "theirs.zip", "0123", ["it holds no runs"])
    with pytest.raises(UserError, match="has 1 faults, the first: it holds no runs"):
        site.write(reports, tmp_path / "site", others)


def store_files(folder):
    return sorted(p for p in (folder / "runs").iterdir() if p.is_file())


def test_a_site_takes_no_folder_of_somebody_else(folder, tmp_path):
    """Nor a folder of pages that has GitHub's .nojekyll."""
    for name in ("thesis.tex", ".nojekyll"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="is not a site that this command has made"):
        site.write(folder.parent, tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(UserError, match="holds no reports"):
        site.write(tmp_path, tmp_path / "site")

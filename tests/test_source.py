"""What a result depends on is what its code does, not how it is written down."""

import pytest

from i4d_bench import source
from i4d_bench.jobs.plan import READER, SCORING, TRAINING

PLAIN = '''
"""A design."""

def forward(x):
    # twice
    return 2 * x
'''


@pytest.fixture(autouse=True)
def fresh_reading():
    """A process reads every file once; tests edit them."""
    source.read.cache_clear()


def digest_of(path, text: str) -> str:
    path.write_text(text)
    source.read.cache_clear()
    return source.digest(path)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# twice", "# two times", True),
        ('"""A design."""', '"""Another word for it."""', True),
        ("2 * x", "(2  *  x)", True),
        ("2 * x", "3 * x", False),
        ("def forward(x):", "def forward(x, y=1):", False),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path, old, new, same):
    before = digest_of(tmp_path / "gain.py", PLAIN)
    assert (digest_of(tmp_path / "gain.py", PLAIN.replace(old, new)) == before) is same


def test_what_lies_beside_a_file_and_is_imported_counts(tmp_path):
    (tmp_path / "helper.py").write_text("GAIN = 1\n")
    before = digest_of(tmp_path / "gain.py", "def forward(x):\n    from helper import GAIN\n    return GAIN * x\n")
    (tmp_path / "helper.py").write_text("GAIN = 2\n")
    source.read.cache_clear()
    assert source.digest(tmp_path / "gain.py") != before


def test_relative_imports_of_a_package_count(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, text in {"__init__": "", "helper": "GAIN = 1\n", "gain": "from .helper import GAIN\n"}.items():
        (tmp_path / "mine" / f"{name}.py").write_text(text)
    assert set(source.closure(tmp_path / "mine" / "gain.py")) == {"mine", "mine.gain", "mine.helper"}


def test_one_more_metric_scores_again_and_trains_nothing():
    trains, scores = set(source.closure(*TRAINING)), set(source.closure(*SCORING))
    assert {"i4d_bench.model.decoder", "i4d_bench.train.losses", "kernels.reference"} <= trains
    assert not {n for n in trains if n.startswith(("i4d_bench.report", "i4d_bench.jobs", "i4d_bench.results"))}
    assert "i4d_bench.evaluate.evaluator" in scores - trains and "i4d_bench.metrics.consistency" in scores - trains
    assert "i4d_bench.metrics.reader_training" in source.closure(*READER)


def test_a_run_depends_on_what_draws_its_pictures():
    reached = source.closure("i4d_bench.train.loop")
    assert {f"i4d_bench.render.{name}" for name in ("triton", "gsplat", "cpu")} | {"kernels.raster.draw"} <= set(
        reached
    )


def test_a_design_does_not_depend_on_other_designs():
    found = {name for name in source.closure("variants.local_adaln") if name.startswith("variants.")}
    assert "variants.local_adaln" in found and not found & {
        "variants.local_mlp",
        "variants.flame_adaln",
        "variants.static",
    }


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"i4d_bench\.nothing"):
        source.digest("i4d_bench.nothing")

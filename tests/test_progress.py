"""What is printed is what was meant: file names may hold brackets, colons and numbers."""

import pytest

from i4d_bench import progress

NAME = "My talk [dQw4w9WgXcQ] [/bold] :smile: {0}.mp4"


def test_lines_keep_every_character(capsys):
    progress.console.print(f"{NAME}: 12 frames")
    assert capsys.readouterr().out == f"{NAME}: 12 frames\n"


@pytest.mark.parametrize("terminal", ["0", "1"])
def test_bars_keep_every_character_of_label_and_note(monkeypatch, capsys, terminal):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    monkeypatch.setattr(progress.console, "width", 200)
    assert list(progress.track(range(3), f"{NAME}: faces", 3, note=lambda: "[loss]")) == [0, 1, 2]
    printed = capsys.readouterr().out
    assert f"{NAME}: faces" in printed and "[loss]" in printed and ("\x1b" in printed) == (terminal == "1")


def test_what_parts_share_is_no_part_of_their_time(monkeypatch):
    """100 s for what they share, then 10 s for each of four."""
    now = iter([0.0, 100.0, *(t for k in range(1, 5) for t in (100.0 + 10 * k, 100.0 + 10 * k))])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    whole = progress.Whole(4, "runs")

    def work():
        whole.begin()
        yield from range(4)

    monkeypatch.setattr(progress.console, "print", lambda text: said.append(text))
    said: list[str] = []
    assert list(whole.parts(work(), say=True)) == [0, 1, 2, 3]
    assert said == [f"{k} of 4 runs, {left} s left" for k, left in zip(range(1, 5), (30, 20, 10, 0), strict=True)]

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

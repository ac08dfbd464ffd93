"""Progress bars: how often they are updated, and where they are hidden."""

import sys

import pytest

from enerf.core import progress


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.5), (False, 30.0)])
def test_a_bar_is_updated_rarely_in_a_log_file(terminal, seconds, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with progress.progress_bar(3, "work", "step") as bar:
        assert bar.mininterval == seconds
        assert not bar.disable


def test_a_bar_yields_the_items_and_counts_them(capsys):
    assert list(progress.progress_bar(None, "work", "step", iterable=range(3))) == [0, 1, 2]
    assert "work: 100%" in capsys.readouterr().err


def test_a_bar_can_be_hidden_always_or_in_log_files(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    for enabled in (False, None):
        assert list(progress.progress_bar(3, "work", "step", iterable=range(3), enabled=enabled)) == [0, 1, 2]
    assert capsys.readouterr().err == ""

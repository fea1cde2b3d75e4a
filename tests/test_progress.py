"""Progress: bars on a terminal, lines elsewhere, silence about what is quick, and the same results with and without."""

import io
import sys
import threading

import pytest
import torch

from darklens import progress
from darklens.data.preprocessing import Preprocessing
from darklens.data.synthesis import simulate_dataset
from darklens.progress import other_display, progress_bar, working
from darklens.simulation import load_preset


class Stream(io.StringIO):
    """Standard error in memory, which tells when a text has arrived."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal
        self.arrived = threading.Condition()

    def isatty(self):
        return self.terminal

    def write(self, text):
        with self.arrived:
            written = super().write(text)
            self.arrived.notify_all()
        return written

    def has(self, text, times=1):
        with self.arrived:
            return self.arrived.wait_for(lambda: self.getvalue().count(text) >= times, timeout=20)


def watchers():
    return {thread for thread in threading.enumerate() if thread.name.startswith("progress of")}


@pytest.fixture
def use(monkeypatch):
    """Put a stream in the place of standard error: ``use("log")`` or ``use("terminal")``, which speak up at once.

    It is a function and no stream, because pytest sets its own standard error after fixtures are made.
    """

    def put(kind):
        stream = Stream(terminal=kind == "terminal")
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(progress, "BAR_AFTER", 0.0)
        monkeypatch.setattr(progress, "LINE_AFTER", 0.0)
        monkeypatch.setattr(progress, "LINE_EVERY", 1e6)
        return stream

    return put


def test_quick_work_is_not_mentioned(use, monkeypatch):
    log = use("log")
    monkeypatch.setattr(progress, "LINE_AFTER", 1e6)
    with progress_bar("simulating") as advance:
        advance(1, 1)
    assert log.getvalue() == ""
    assert not watchers()


def test_long_work_is_one_line_in_a_log(use):
    log = use("log")
    with progress_bar("simulating") as advance:
        assert log.has("\n")
        advance(1, 2)
    assert log.getvalue() == "simulating …\n"
    assert not watchers()


def test_later_lines_in_a_log_say_how_far_it_is(use, monkeypatch):
    log = use("log")
    monkeypatch.setattr(progress, "LINE_EVERY", 0.001)
    with progress_bar("simulating") as advance:
        advance(1024, 3072)
        assert log.has("simulating … 1,024/3,072, ")
    lines = log.getvalue().splitlines()
    assert lines[0] == "simulating …"
    counted = [number for number, line in enumerate(lines) if "1,024/3,072" in line]
    assert lines[counted[0]] == f"simulating … 1,024/3,072, {counted[0]} min", "one more minute a line"
    log.truncate(0)
    with working("compiling"):
        assert log.has("compiling … 1 min\n")


def test_bars_of_nested_work_share_one_display_and_leave_nothing(use):
    terminal = use("terminal")
    with progress_bar("outer [x]") as advance:
        advance(3, 1000)
        assert terminal.has("outer [x]")
        assert terminal.has("3/1,000")
        display = progress._terminal._display
        with working("inner"):
            assert terminal.has("inner")
            assert progress._terminal._display is display
            assert [task.description for task in display.tasks] == ["outer [x]", "inner"]
        assert [task.description for task in display.tasks] == ["outer [x]"]
    assert progress._terminal._display is None
    assert terminal.getvalue().endswith("\x1b[2K\x1b[?25h\r"), "the last line is wiped and the cursor back"
    assert not watchers()
    assert sys.stderr is terminal


@pytest.mark.parametrize("kind", ["log", "terminal"])
def test_exceptions_pass_through_and_end_the_display(kind, use):
    seen = use(kind)

    def fail():
        with progress_bar("outer"), working("inner"):
            assert seen.has("outer")
            assert seen.has("inner")
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        fail()
    assert not watchers()
    assert progress._terminal._display is None
    assert sys.stderr is seen


def test_bars_make_room_for_another_display(use):
    terminal = use("terminal")
    with progress_bar("ours"):
        assert terminal.has("ours")
        with other_display():
            text = terminal.getvalue()
            assert not progress._terminal._display.live.is_started
            with progress_bar("within") as advance:
                advance(1, 2)
                assert progress._terminal.show("asked", None) is None
            assert "within" not in terminal.getvalue()
            assert terminal.getvalue() == text
        assert progress._terminal._display.live.is_started
    assert progress._terminal._display is None


def test_works_of_many_threads_are_counted_each_for_itself(use):
    """Eight threads report at once; every bar ends with what its own thread reported."""
    terminal = use("terminal")
    shown, release = threading.Barrier(9, timeout=20), threading.Event()

    def work(number):
        with progress_bar(f"work {number}") as advance:
            assert terminal.has(f"work {number}")
            for done in range(200):
                advance(done, 200 + number)
            shown.wait()
            release.wait(20)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    shown.wait()
    last = {task.description: (task.completed, task.total) for task in progress._terminal._display.tasks}
    release.set()
    for worker in workers:
        worker.join()
    assert last == {f"work {number}": (199, 200 + number) for number in range(8)}
    assert progress._terminal._display is None


def test_helper_processes_say_nothing(use, monkeypatch):
    log = use("log")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with progress_bar("simulating") as advance:
        assert not watchers()
        advance(1, 2)
    assert log.getvalue() == ""


def test_a_dumb_terminal_gets_lines(use, monkeypatch):
    terminal = use("terminal")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(progress, "LINE_AFTER", 0.0)
    with progress_bar("simulating"):
        assert terminal.has("\n")
    assert terminal.getvalue() == "simulating …\n"


@pytest.mark.parametrize("kind", ["log", "terminal"])
def test_results_do_not_depend_on_what_is_shown(kind, use, tmp_path):
    preset = load_preset("model-3-noisy")
    images = torch.randn(8, 1, 24, 24, generator=torch.Generator().manual_seed(0)) + 5
    silent = simulate_dataset(preset, 64, 3, out=tmp_path / "silent")
    fitted = Preprocessing(lens_model=True).fit(images)
    state = torch.random.get_rng_state()
    seen = use(kind)
    with progress_bar("simulating") as advance:
        assert seen.has("simulating")
        shown = simulate_dataset(preset, 64, 3, out=tmp_path / "shown", progress=advance)
        assert Preprocessing(lens_model=True).fit(images) == fitted
    for name in ("images.npy", "catalog.parquet", "dataset.json"):
        assert (shown / name).read_bytes() == (silent / name).read_bytes(), name
    assert torch.equal(torch.random.get_rng_state(), state)

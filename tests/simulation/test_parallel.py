"""Things made in order by threads and by processes, which end with the program that started them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from darklens.data.synthesis import simulate_dataset
from darklens.errors import DataError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.library import resolve_preset
from darklens.simulation.pairs import sharper
from darklens.simulation.parallel import in_order


def square(number):
    if number == 13:
        raise DataError("13 is refused")
    return number, number**2, os.getpid(), torch.get_num_threads()


@pytest.mark.parametrize("processes", [False, True])
def test_order_workers_and_errors(processes):
    before = torch.get_num_threads()
    made = in_order(square, range(3, 15), 2, processes=processes)
    found = [next(made) for _ in range(10)]
    assert [(n, s) for n, s, _, _ in found] == [(n, n**2) for n in range(3, 13)]
    with pytest.raises(DataError, match="13 is refused"):
        next(made)
    assert (os.getpid() in {pid for _, _, pid, _ in found}) is not processes
    assert {threads for *_, threads in found} == {1}
    assert torch.get_num_threads() == before
    assert list(in_order(square, [], 2, processes=processes)) == []


def test_threads_run_little_ahead_of_the_reader():
    begun = []

    def make(number):
        begun.append(number)
        return number

    made = in_order(make, range(100), 3)
    for expected in range(4):
        assert next(made) == expected
        time.sleep(0.02)
        assert len(begun) <= expected + 1 + 2 * 3
    made.close()
    assert len(begun) < 20


def test_processes_write_the_same_bytes_with_targets_and_masks(tmp_path):
    preset = load_preset("model-3-noisy")
    pairs = {"target": sharper(preset, 2), "noisy_targets": True}
    a = simulate_dataset(preset, 150, 5, out=tmp_path / "a", **pairs)
    b = simulate_dataset(preset, 150, 5, out=tmp_path / "b", processes=2, **pairs)
    artefacts = {"satellite": 0, "cosmic_rays": 0, "bleeding": 0, "edge": 0.5}
    scene = load_preset(resolve_preset("finding-deeplense") | {"name": "edges", "pixels": 32, "artefacts": artefacts})
    c = simulate_dataset(scene, 70, 5, out=tmp_path / "c")
    d = simulate_dataset(scene, 70, 5, out=tmp_path / "d", processes=2)
    for one, other, names in ((a, b, ("images", "targets")), (c, d, ("images", "mask"))):
        for name in names:
            expected = np.load(one / f"{name}.npy")
            assert expected.any()
            np.testing.assert_array_equal(np.load(other / f"{name}.npy"), expected)
        assert (one / "catalog.parquet").read_bytes() == (other / "catalog.parquet").read_bytes()


def test_each_process_loads_code_of_the_users_own(tmp_path):
    code = tmp_path / "own.py"
    code.write_text("def pull(x, y, x0, y0, theta_E):\n    return theta_E * (x - x0), theta_E * (y - y0)\n")
    subhalos = {"profile": f"{code}:pull", "count": 1, "parameters": {"theta_E": 0.01}}
    own = {"name": "own", "pixels": 16, "classes": {"pulled": {"subhalos": subhalos}}}
    preset = load_preset(resolve_preset("model-3-noisy") | own, trust_code=True)
    folder = simulate_dataset(preset, 4, 1, out=tmp_path / "a", processes=2)
    images, _ = next(Simulator(preset, 1).blocks(4))
    np.testing.assert_array_equal(np.load(folder / "images.npy"), images.numpy().astype(np.float32))


SCRIPT = """
import os, sys, time
from darklens.simulation.parallel import in_order

def wait(number):
    print(os.getpid(), flush=True)
    time.sleep(3)

if __name__ == "__main__":
    list(in_order(wait, range(2), 2, processes=True))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_a_program_that_is_killed(stop, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as program:  # fmt: skip
        workers = [int(program.stdout.readline()) for _ in range(2)]
        if stop == signal.SIGINT:
            os.killpg(program.pid, stop)  # as a terminal does
        else:
            program.send_signal(stop)
        assert program.wait() != 0
        said = program.stderr.read()
    assert said.count("KeyboardInterrupt\n") == (stop == signal.SIGINT), "of the program alone"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(runs(pid) for pid in workers):
        time.sleep(0.1)
    assert not any(runs(pid) for pid in workers)


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # a zombie that nobody has waited for yet has ended
        return file.read().rpartition(")")[2].split()[0] != "Z"

"""Logged values of a run over several attempts, by hand."""

from darklens.training.history import epoch_history


def attempt(run, number, text):
    folder = run / "logs" / f"csv-{number}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


def test_attempts_are_joined_in_the_order_of_their_numbers(tmp_path):
    """The second began again at epoch 1, the eleventh at epoch 2; what a lost epoch had is written over."""
    head = "epoch,step,seconds,train/loss_step,train/loss_epoch,validation/loss\n"
    attempt(tmp_path, 0, head + "0,4,,0.5,,\n0,9,10,,,\n0,9,,,0.7,0.8\n1,19,25,,,\n1,19,,,0.6,0.75\n2,22,,0.4,,\n")
    attempt(tmp_path, 2, head + "1,19,11,,,\n1,19,,,0.61,0.74\n,20,,,,\n")
    attempt(tmp_path, 10, head + "2,29,6,,,\n2,29,,,0.5,0.7\n3,33,,,0.4,\n")
    (tmp_path / "logs" / "tensorboard").mkdir()
    assert epoch_history(tmp_path) == [
        {"epoch": 0, "step": 9, "seconds": 10, "train/loss_epoch": 0.7, "validation/loss": 0.8},
        {"epoch": 1, "step": 19, "seconds": 36, "train/loss_epoch": 0.61, "validation/loss": 0.74},
        {"epoch": 2, "step": 29, "seconds": 42, "train/loss_epoch": 0.5, "validation/loss": 0.7},
    ]


def test_run_without_logs_has_no_history(tmp_path):
    assert epoch_history(tmp_path) == []
    attempt(tmp_path, 0, "epoch,validation/loss\n5,0.5\n2,0.25\n")
    assert epoch_history(tmp_path) == [
        {"epoch": 2, "validation/loss": 0.25}, {"epoch": 5, "validation/loss": 0.5},
    ]  # fmt: skip

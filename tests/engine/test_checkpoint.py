"""Runs that are killed, torn or out of disk go on as if nothing had happened."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from biolearn_lite.nets.networks import mlp
from biolearn_lite.training import checkpoint
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import fit

EPOCHS = 12


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


class Stop(Exception):
    pass


def run(checkpoints=None, *, stop_after=None, epochs=EPOCHS, hidden=8, pause=0.0):
    """Dropout, momentum, rate drops and shuffling: all that has a state."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    y = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
    net = mlp((6, hidden, 8, 3), activation=nn.Tanh(), after=partial(nn.Dropout, 0.2), partition=(2, 1))
    objectives = [lambda seen, batch: (seen.square().mean(1) - batch.labels).square().mean(), cross_entropy]

    def after_epoch(epoch):
        time.sleep(pause)
        if epoch == stop_after:
            raise Stop
        return {"mean": net(x).mean().item()}

    history = fit(
        net,
        objectives,
        x,
        y,
        optimizers=partial(torch.optim.Adam, lr=0.01),
        scheduler=partial(MultiStepLR, milestones=[3, 6], gamma=0.5),
        epochs=epochs,
        batch_size=16,
        seed=4,
        checkpoints=checkpoints,
        after_epoch=after_epoch,
        progress=False,
    )
    return history, [p.detach().clone() for p in net.parameters()]


def same(a, b):
    return a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


@pytest.mark.parametrize("stop_after", [1, 2, 5, 12])
def test_interrupted_and_resumed_is_never_interrupted(tmp_path, uninterrupted, stop_after):
    with pytest.raises(Stop):
        run(Checkpoints(tmp_path, every=0), stop_after=stop_after)
    assert same(run(Checkpoints(tmp_path, every=0)), uninterrupted)
    assert same(run(Checkpoints(tmp_path, every=0)), uninterrupted), "a finished run must not go on"


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, uninterrupted):
    run(Checkpoints(tmp_path), epochs=4)
    assert same(run(Checkpoints(tmp_path)), uninterrupted)


def test_kill_minus_nine(tmp_path, uninterrupted):
    """Ten kills at random moments; whatever is on disk each time, the last run ends where the uninterrupted one did."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    code += "import test_checkpoint as t\nprint('ready', flush=True)\n"
    code += f"t.run(t.Checkpoints({str(tmp_path)!r}, every=0), pause=0.02)\n"
    random = torch.Generator().manual_seed(0)
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.08 * torch.rand((), generator=random).item())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert same(run(Checkpoints(tmp_path, every=0)), uninterrupted)


@pytest.mark.parametrize("keep", [0, 10, 40, -1])
def test_a_torn_checkpoint_is_noticed_and_the_one_before_it_used(tmp_path, uninterrupted, keep):
    run(Checkpoints(tmp_path, every=0), epochs=5)
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    content = newest.read_bytes()
    newest.write_bytes(content[:keep] if keep >= 0 else content[:-1] + bytes([content[-1] ^ 1]))
    assert len(Checkpoints(tmp_path).load()["history"]) == 4
    assert same(run(Checkpoints(tmp_path, every=0)), uninterrupted)


def test_a_full_disk_loses_nothing_written_before(tmp_path, monkeypatch, uninterrupted):
    run(Checkpoints(tmp_path, every=0), epochs=5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full)
        with pytest.warns(UserWarning, match="No space left"):
            run(Checkpoints(tmp_path, every=0), epochs=8)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert same(run(Checkpoints(tmp_path, every=0)), uninterrupted)


def test_another_run_in_the_folder_is_refused(tmp_path):
    run(Checkpoints(tmp_path), epochs=2)
    with pytest.raises(ValueError, match="holds another run"):
        run(Checkpoints(tmp_path), hidden=9)


def test_saves_no_more_often_than_asked(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Checkpoints(tmp_path, every=3600), epochs=3)
    assert [state["step"] for state in [Checkpoints(tmp_path).load()]] == [9]
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="every=-1"):
        Checkpoints(tmp_path, every=-1)

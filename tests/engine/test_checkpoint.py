"""Runs that are killed, torn or out of disk go on as if nothing had happened."""

import errno
import json
import multiprocessing
import random
import threading
import time
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR
from tqdm import tqdm

from biolearn_lite.nets.networks import mlp
from biolearn_lite.training import checkpoint
from biolearn_lite.training.checkpoint import Checkpoints
from biolearn_lite.training.fit import fit
from biolearn_lite.training.schedules import RandomLayer

EPOCHS = 12


def cross_entropy(seen, batch):
    return F.cross_entropy(seen, batch.labels)


class Stop(Exception):
    pass


def run(
    folder=None, *, every=0.0, stop_after=None, epochs=EPOCHS, hidden=8, pause=0.0, rate=0.01, batch_size=16, **options
):
    """Adam, dropout, rate drops, shuffling, layers drawn at random: all that has a state. Returns (history, log,
    weights); what the log should be, where there is no folder."""
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
        optimizers=partial(torch.optim.Adam, lr=rate),
        scheduler=partial(MultiStepLR, milestones=[3, 6], gamma=0.5),
        schedule=RandomLayer(seed=5),
        epochs=epochs,
        batch_size=batch_size,
        seed=4,
        checkpoints=Checkpoints(folder / "states", every=every) if folder else None,
        log=folder / "log.jsonl" if folder else None,
        after_epoch=after_epoch,
        progress=False,
        **options,
    )
    log = (folder / "log.jsonl").read_text() if folder else "".join(json.dumps(metrics) + "\n" for metrics in history)
    return history, log, [p.detach().clone() for p in net.parameters()]


def same(a, b):
    return a[:2] == b[:2] and all(torch.equal(x, y) for x, y in zip(a[2], b[2], strict=True))


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


@pytest.mark.parametrize("stop_after", [1, 2, 5, 12])
def test_interrupted_and_resumed_is_never_interrupted(tmp_path, uninterrupted, stop_after):
    with pytest.raises(Stop):
        run(tmp_path, stop_after=stop_after)
    assert (tmp_path / "log.jsonl").read_text().count("\n") == stop_after - 1
    assert same(run(tmp_path), uninterrupted)
    assert same(run(tmp_path), uninterrupted), "a finished run must not go on"


def test_the_scale_of_half_precision_is_kept(tmp_path):
    half = partial(run, autocast=torch.float16, clip_norm=1.0)
    with pytest.raises(Stop):
        half(tmp_path, stop_after=7)
    states = Checkpoints(tmp_path / "states").load()["parts"]
    assert any("growth_factor" in state for state in states)
    assert same(half(tmp_path), half())


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, uninterrupted):
    run(tmp_path, every=60, epochs=4)
    assert same(run(tmp_path), uninterrupted)


def test_kill_minus_nine(tmp_path):
    """Ten kills at random moments; whatever is on disk each time, the last run ends where the uninterrupted one did."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch._dynamo", "biolearn_lite.training.fit", "biolearn_lite.nets.networks"])
    draws, log, killed_at = random.Random(0), tmp_path / "log.jsonl", []
    for _ in range(10):
        process = processes.Process(target=run_to_be_killed, args=(tmp_path,))
        process.start()
        goal = max(lines(log), 0) + draws.randint(0, 4)
        while lines(log) < goal and process.is_alive():
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -9, "it failed, or ended, before it could be killed"
        killed_at.append(lines(log))
    assert len(set(killed_at)) > 4
    assert same(run(tmp_path, epochs=60), run(epochs=60))


def run_to_be_killed(folder):
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and a kill would leave it behind
    run(folder, epochs=60, pause=0.02)


def lines(log):
    """Of a log that may not be there yet."""
    return log.read_text().count("\n") if log.exists() else -1


@pytest.mark.parametrize("keep", [0, 10, 40, -1])
def test_a_torn_checkpoint_is_noticed_and_the_one_before_it_used(tmp_path, uninterrupted, keep):
    run(tmp_path, epochs=5)
    newest = max((tmp_path / "states").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    content = newest.read_bytes()
    newest.write_bytes(content[:keep] if keep >= 0 else content[:-1] + bytes([content[-1] ^ 1]))
    assert len(Checkpoints(tmp_path / "states").load()["history"]) == 4
    assert same(run(tmp_path), uninterrupted)


@pytest.mark.parametrize("damage", [lambda text: text[:-30], lambda text: text + text, lambda text: ""])
def test_a_damaged_log_is_made_whole_again(tmp_path, uninterrupted, damage):
    log = tmp_path / "log.jsonl"
    run(tmp_path, epochs=5)
    log.write_text(damage(log.read_text()))
    assert same(run(tmp_path), uninterrupted)
    log.write_text(damage(log.read_text()))
    assert same(run(tmp_path), uninterrupted), "even when no epoch is left"


def test_a_full_disk_loses_nothing_written_before(tmp_path, monkeypatch, uninterrupted):
    def files():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    run(tmp_path, epochs=5)
    before = files()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", full)
        with warnings.catch_warnings(record=True) as caught:
            run(tmp_path, epochs=8)
    told = [str(warning.message) for warning in caught]
    assert all("No space left" in message for message in told)
    assert {message.split()[0] for message in told} == {"checkpoint", "log"}
    assert files() == before
    assert same(run(tmp_path), uninterrupted)


def test_another_run_in_the_folder_is_refused(tmp_path):
    run(tmp_path, epochs=2)
    with pytest.raises(ValueError, match="holds another run"):
        run(tmp_path, hidden=9)


@pytest.mark.parametrize("change", [{"batch_size": 8}, {"clip_norm": 1.0}, {"order": "summed"}, {"rate": 0.02}])
def test_another_call_in_the_folder_is_refused(tmp_path, change):
    """A rate search in one folder would else find the first rate's result each time."""
    run(tmp_path, epochs=2)
    with pytest.raises(ValueError, match="holds a run with other options"):
        run(tmp_path, **change)


def test_a_run_that_is_further_is_refused_and_an_old_state_taken_as_it_is(tmp_path, uninterrupted):
    run(tmp_path, epochs=3)
    with pytest.raises(ValueError, match="epochs=2: the run in checkpoints has 3 already"):
        run(tmp_path, epochs=2)
    states = Checkpoints(tmp_path / "states")
    state = states.load()
    assert "'examples': 40" in state.pop("call")
    states.save(state)
    assert same(run(tmp_path), uninterrupted)


def test_metrics_that_json_cannot_hold_are_named(tmp_path):
    x, y = torch.randn(4, 6), torch.randint(3, (4,))
    net = mlp((6, 8, 3), activation=nn.Tanh())
    sgd = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(TypeError, match=r"log: .*Tensor.*plain numbers"):
        fit(
            net,
            [cross_entropy],
            x,
            y,
            optimizers=sgd,
            epochs=1,
            batch_size=4,
            after_epoch=lambda _: {"weight": torch.ones(1)},
            log=tmp_path / "log.jsonl",
            progress=False,
        )


def test_saves_no_more_often_than_asked(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tmp_path, every=3600, epochs=3)
    assert [state["step"] for state in [Checkpoints(tmp_path / "states").load()]] == [9]
    assert len(list((tmp_path / "states").iterdir())) == 1
    with pytest.raises(ValueError, match="every=-1"):
        Checkpoints(tmp_path, every=-1)


def test_a_save_that_took_long_is_followed_by_a_long_pause(tmp_path, monkeypatch):
    """At a clock that a save advances by 3 s: the next one comes 150 s later, 2 % of the time."""
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    states = Checkpoints(tmp_path, every=10)
    saves = []

    def save(state):
        saves.append(now[0])
        now[0] += 3

    monkeypatch.setattr(states, "save", save)
    for _ in range(400):
        now[0] += 1
        states.offer({"step": 0})
    assert saves == [10, 163, 316]

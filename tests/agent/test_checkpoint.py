"""A training that is stopped, or killed, resumes from its file without loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agents import ENV, images_of, tiny, tiny_seer
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.fault_injection import largest_file
from grasp_agent import Goal, GraspAgent, TrainConfig, evaluate, serialization
from grasp_agent.agent.checkpoint import Checkpoint
from grasp_agent.agent.saved_settings import fits_of
from grasp_agent.agent.trainer import Fits


class Stop(BaseCallback):
    """Raises what Ctrl-C raises."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            raise KeyboardInterrupt
        return True


@pytest.mark.parametrize("at", [7, 101, 250])
def test_a_stopped_training_resumes_where_it_was_stopped(tmp_path: Path, at: int):
    path = tmp_path / "run.zip"
    with pytest.raises(KeyboardInterrupt):
        tiny().learn(260, Stop(at), checkpoint=path)
    stopped = GraspAgent.load(path, device="cpu")
    assert stopped.num_timesteps == at
    assert len(stopped.trainer.dataset) == at - 1  # the interrupted step is lost
    again = tiny().learn(260, checkpoint=path)
    assert again.num_timesteps == 260
    assert len(again.trainer.dataset) == 259
    before = stopped.trainer.dataset.states
    np.testing.assert_array_equal(again.trainer.dataset.states[: len(before)], before)
    assert GraspAgent.load(path, device="cpu").policy.world is not None


def test_a_finished_training_is_not_repeated(tmp_path: Path):
    path = tmp_path / "run"
    first = tiny().learn(150, checkpoint=path)
    content = path.with_suffix(".zip").read_bytes()
    again = tiny().learn(150, checkpoint=path)
    assert path.with_suffix(".zip").read_bytes() == content
    assert again.num_timesteps == 150
    assert first.policy.world is not None
    assert again.policy.world is not None
    np.testing.assert_array_equal(again.policy.world.model.weights[0].detach(), first.policy.world.model.weights[0])
    assert tiny().learn(180, checkpoint=path).num_timesteps == 180


def test_the_time_of_training_is_counted_and_saved(tmp_path: Path):
    path, began = tmp_path / "run.zip", time.monotonic()
    first = tiny().learn(150, checkpoint=path)
    spent = time.monotonic() - began
    assert 0.3 * spent < first.training_seconds <= spent
    loaded = GraspAgent.load(path, device="cpu")
    assert loaded.training_seconds == pytest.approx(first.training_seconds, abs=0.1)
    again = tiny().learn(300, checkpoint=path)
    assert again.training_seconds > 1.2 * first.training_seconds
    before = again.training_seconds
    again.trainer.fits = Fits()
    again.fit([*again.trainer.dataset.episodes])
    assert again.training_seconds > before


def test_a_checkpoint_knows_how_much_of_its_experience_is_rehearsed(agent_file: Path, tmp_path: Path):
    path = tmp_path / "run.zip"
    agent = GraspAgent.load(agent_file, env=ENV, device="cpu", train=TrainConfig(gradient_steps=1))
    agent.learn(20, checkpoint=path)
    fits = agent.trainer.fits
    assert 0 < fits.rehearsed == fits.seen - 20 == fits.completed - 20
    assert GraspAgent.load(path, device="cpu").trainer.fits == fits
    assert fits_of({"fitted_at": 7}) == Fits(seen=7, completed=7, kind_chosen=7)  # of older files


def test_a_resumed_training_gets_new_episodes(tmp_path: Path):
    path = tmp_path / "run.zip"
    tiny().learn(100, checkpoint=path)
    states = tiny().learn(200, checkpoint=path).trainer.dataset.states
    assert not np.array_equal(states[:50], states[101:151])


def test_running_episodes_are_complete_in_the_file_and_continue(tmp_path: Path):
    path = tmp_path / "run.zip"

    class Write(BaseCallback):
        def _on_step(self) -> bool:
            model = self.model
            assert isinstance(model, GraspAgent)
            if self.num_timesteps == 60:
                Checkpoint(path).write(lambda: model.snapshot(experience=True))
            return True

    agent = tiny().learn(90, Write())
    assert len(GraspAgent.load(path, device="cpu").trainer.dataset) == 59
    assert [len(episode.actions) for episode in agent.trainer.dataset.episodes] == [90]


def test_the_file_is_written_before_a_fit_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.zip"

    def killed(*_: Any, **__: Any) -> None:
        assert GraspAgent.load(path, device="cpu").num_timesteps == 100
        raise SystemExit

    monkeypatch.setattr("grasp_agent.agent.trainer.learn_world", killed)
    with pytest.raises(SystemExit):
        tiny().learn(150, checkpoint=path)


def test_the_file_is_written_periodically(tmp_path: Path):
    checkpoint = Checkpoint(tmp_path / "run.zip", seconds=0.05)
    assert not checkpoint.due
    time.sleep(0.1)
    assert checkpoint.due
    checkpoint.write(tiny().snapshot)
    assert not checkpoint.due


def test_a_file_of_another_task_is_refused(tmp_path: Path):
    path = tmp_path / "run.zip"
    tiny().learn(20, checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.zip: expected the observation space"):
        tiny("grasp/Reacher-v0").learn(20, checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.zip: expected the goal \{'values': \[1\.0\].*, got None"):
        tiny("Pendulum-v1", goal=Goal.at({0: 1.0}, tolerance=0.1)).learn(20, checkpoint=path)
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"run\.zip"):
        tiny().learn(20, checkpoint=path)
    assert path.read_bytes() == b"no zip"


def test_a_limit_of_minutes_ends_gathering_before_the_final_fit():
    agent = tiny().learn(10**6, minutes=0.02)
    assert 0 < agent.num_timesteps < 10**6
    assert agent.policy.world is not None
    with pytest.raises(ValueError, match="minutes: expected more than 0, got 0"):
        agent.learn(10, minutes=0)


SCRIPT = """
import sys, torch
from grasp_agent import GraspAgent
torch.set_num_threads(1)
GraspAgent("MultiInputPolicy", "grasp/BallNav-v0", seed=0, device="cpu").learn(2000, checkpoint=sys.argv[1])
"""


@pytest.mark.slow
def test_a_training_that_is_killed_ten_times_learns_as_well(tmp_path: Path):
    random = np.random.default_rng(0)
    killed, whole = ([sys.executable, "-c", SCRIPT, str(tmp_path / f"{name}.zip")] for name in ("killed", "whole"))
    for _ in range(10):
        process = subprocess.Popen(killed)
        deadline = time.monotonic() + random.uniform(4, 25)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
        process.wait()
        if Path(killed[-1]).exists():
            GraspAgent.load(killed[-1], device="cpu")  # whole at any moment
    success = []
    for script in (killed, whole):
        subprocess.run(script, check=True)
        agent = GraspAgent.load(script[-1], device="cpu")
        assert agent.num_timesteps == 2000
        success.append(evaluate(agent, ENV, 30, 20_000).summary()["success_end"])
    print(f"success, killed ten times: {success[0]:.2f}, never: {success[1]:.2f}")
    assert success[0] >= success[1] - 0.2


def test_callbacks_get_the_number_of_remaining_steps(tmp_path: Path):
    class Left(BaseCallback):
        left: int

        def _on_training_start(self) -> None:
            self.left = self.locals["total_timesteps"] - self.num_timesteps

        def _on_step(self) -> bool:
            return True

    remaining = Left()
    agent = tiny().learn(30, remaining, checkpoint=tmp_path / "run.zip")
    assert remaining.left == 30
    agent.learn(10, remaining, reset_num_timesteps=False)
    assert remaining.left == 10
    tiny().learn(45, remaining, checkpoint=tmp_path / "run.zip")
    assert remaining.left == 15


def test_a_damaged_checkpoint_is_named(tmp_path: Path):
    path = tmp_path / "run.zip"
    tiny().learn(40, checkpoint=path)
    config, tensors = serialization.read(path)
    serialization.write(path, config, {**tensors, "experience.lengths": tensors["experience.lengths"] + 1})
    agent = tiny()
    with pytest.raises(ValueError, match=r"run\.zip: cannot be loaded: "):
        agent.learn(50, checkpoint=path)
    assert agent.num_timesteps == len(agent.trainer.dataset) == 0


@pytest.mark.parametrize("name", ["success_changes", "verdicts"])  # the second is the name in older files
def test_what_environments_said_of_success_is_kept_once(name: str, tmp_path: Path):
    path, flips = tmp_path / "run.zip", torch.arange(12.0).view(2, 3, 2)
    tiny().learn(40, checkpoint=path)
    config, tensors = serialization.read(path)
    serialization.write(path, config, {**tensors, f"experience.{name}": flips})
    agent = tiny().learn(40, checkpoint=path)
    assert len(agent.trainer.success_radius) == 2
    agent.learn(40, checkpoint=path)
    assert len(agent.trainer.success_radius) == 2


def test_learning_continues_from_a_checkpoint_of_format_1(tmp_path: Path):
    path, old = tmp_path / "new.zip", tmp_path / "old.zip"
    agent = tiny_seer().learn(120, checkpoint=path)
    config, tensors = serialization.read(path)
    tensors["experience.success_changes"] = torch.arange(12.0).view(2, 3, 2)
    named = {"experience.success_changes": "verdicts"}
    before = {
        named.get(name, name.removeprefix("index.").replace("images.", "album.")): value
        for name, value in tensors.items()
    }
    assert {"middle", "album.count", "verdicts"} <= set(before)
    serialization.write(old, {**config, "format": 1}, before)
    assert serialization.read(old)[0]["format"] == 1
    (tmp_path / "old.zip.pictures").write_bytes((tmp_path / "new.zip.pictures").read_bytes())
    again = tiny_seer().learn(120, checkpoint=old)
    np.testing.assert_array_equal(again.trainer.dataset.states, agent.trainer.dataset.states)
    np.testing.assert_array_equal(images_of(again).buffer.images, images_of(agent).buffer.images)
    assert len(again.trainer.success_radius) == 2
    assert again.policy.world is not None and again.policy.world.error == pytest.approx(agent.policy.world.error)  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"env": "grasp/Wall-v0"}, {"env": gym.make(ENV, layout="open")}])
def test_a_checkpoint_of_another_environment_is_refused_and_kept(options: dict[str, Any], tmp_path: Path):
    path = tmp_path / "run.zip"
    tiny().learn(30, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run\.zip: expected a checkpoint of grasp/.*, got grasp/BallNav-v0"):
        tiny(**options).learn(60, checkpoint=path)
    assert path.read_bytes() == before


class Act(BaseCallback):
    """Does something at a step."""

    def __init__(self, at: int, act: Any) -> None:
        super().__init__()
        self.at, self.act = at, act

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            self.act()
        return True


@pytest.mark.parametrize("make", [tiny, tiny_seer])
def test_a_second_training_with_the_same_checkpoint_is_refused_and_harms_nothing(make: Any, tmp_path: Path):
    path, link = tmp_path / "run.zip", tmp_path / "link.zip"
    link.symlink_to(path)

    def second() -> None:
        for name in (path, link, tmp_path / "run"):
            with pytest.raises(BlockingIOError, match=r"run\.zip: another training writes this checkpoint"):
                make().learn(60, checkpoint=name)

    make().learn(50, Act(30, second), checkpoint=path)
    assert make().learn(60, checkpoint=link).num_timesteps == 60
    assert not list(tmp_path.glob(".*"))


def test_an_agent_that_learns_on_without_its_checkpoint_leaves_the_file_of_images(tmp_path: Path):
    path = tmp_path / "run.zip"
    first, second = tiny_seer().learn(50, checkpoint=path), tiny_seer()

    def learn_on() -> None:
        before = np.array(images_of(second).buffer.images)
        first.learn(40)
        np.testing.assert_array_equal(images_of(second).buffer.images, before)

    second.learn(80, Act(70, learn_on), checkpoint=path)
    images = tiny_seer()
    images.learn(80, checkpoint=path)
    np.testing.assert_array_equal(images_of(images).buffer.images, images_of(second).buffer.images)
    path.unlink()
    tiny_seer().learn(20, checkpoint=path)  # a new file, not the one that the others have mapped
    assert len(images_of(second).buffer.images) == len(images_of(images).buffer.images) > 80


def test_sigterm_stops_as_ctrl_c_does_and_the_old_handler_is_restored(tmp_path: Path):
    path, before = tmp_path / "run.zip", signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as stopped:
        tiny().learn(60, Act(40, lambda: os.kill(os.getpid(), signal.SIGTERM)), checkpoint=path)
    assert getattr(stopped.value, "code", None) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert GraspAgent.load(path, device="cpu").num_timesteps == 40


def test_a_users_handler_of_sigterm_stays(tmp_path: Path):
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        tiny().learn(50, Act(40, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_a_full_disk_leaves_a_checkpoint_that_continues(tmp_path: Path):
    path, limit = tmp_path / "run.zip", 60 * 64 * 64 * 3  # of 60 images
    tiny_seer().learn(40, checkpoint=path)
    with (
        largest_file(limit),
        pytest.raises(OSError, match=r"run\.zip\.pictures: cannot be written: the file is larger"),
    ):
        tiny_seer().learn(90, checkpoint=path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.zip", "run.zip.pictures"]
    again = tiny_seer().learn(90, checkpoint=path)
    assert again.num_timesteps == 90
    assert len(images_of(again).buffer.images) >= 91


def test_other_settings_than_those_of_the_checkpoint_are_named(tmp_path: Path):
    path = tmp_path / "run.zip"
    tiny().learn(20, checkpoint=path)
    tiny().learn(25, checkpoint=path)
    said = r"run\.zip: the training continues with seed 4 instead of 3, horizon 9 instead of 12, another train$"
    with pytest.warns(UserWarning, match=said):
        tiny(seed=4, horizon=9, train=TrainConfig(gradient_steps=7)).learn(30, checkpoint=path)
    assert GraspAgent.load(path, device="cpu").seed == 4


@pytest.mark.parametrize("name", ["", "..", "folder/", "a" * 250])
def test_a_checkpoint_that_cannot_be_written_is_refused_before_anything_is_learned(name: str, tmp_path: Path):
    agent = tiny()
    with pytest.raises(ValueError, match="path: expected"):
        agent.learn(20, checkpoint=os.path.join(tmp_path, name) if name else name)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        agent.learn(20, checkpoint=tmp_path / "folder")
    assert agent.num_timesteps == 0

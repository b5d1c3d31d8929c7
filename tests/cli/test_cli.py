import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3
import numpy as np
import pytest

import grasp_agent
import grasp_envs.ball_nav
from benchmarks.fault_injection import largest_file
from grasp_agent.cli import console, demo
from grasp_agent.cli.main import main
from grasp_agent.evaluation import config
from grasp_agent.evaluation.evaluate import evaluate
from grasp_agent.zoo.baselines import baselines

ENV_ID = "grasp/BallNav-v0"


class Straight:
    """Heads for the goal; counts its calls, and gives up at one of them."""

    env_id: str | None = ENV_ID

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.env_kwargs: dict[str, Any] = {"layout": "open"}
        self.interrupt_at, self.calls = interrupt_at, 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return np.clip(4 * (observation["desired_goal"] - observation["achieved_goal"]), -1, 1), None

    def set_env(self, env) -> None:
        if "achieved_goal" not in getattr(env.observation_space, "spaces", {}):
            raise ValueError(f"Observation spaces do not match:\n{env.observation_space}")


@pytest.fixture
def agent(monkeypatch) -> Straight:
    """An agent that stands for every bundled model."""
    known = Straight()

    def load(name, env=None, device="auto"):
        if name != "ball-nav":
            raise ValueError(f"no model {name!r} (choose from ball-nav, or the path of a saved file)")
        return known

    monkeypatch.setattr(grasp_agent, "load", load, raising=False)
    monkeypatch.setattr(
        grasp_agent, "bundled", lambda: {"ball-nav": SimpleNamespace(description="A ball.")}, raising=False
    )
    return known


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"grasp_agent {grasp_agent.__version__}\n"


@pytest.mark.parametrize("command", ["--version", "models"])
def test_closed_output_is_not_an_error(command: str):
    """As in `grasp models | head -1`."""
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from grasp_agent.cli.main import main; sys.exit(main([{command!r}]))"
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "choose from demo, train, tune, evaluate, compare, record, plan, models"),
        (
            "evalaute ball-nav",
            "unknown command 'evalaute' (choose from demo, train, tune, evaluate, compare, record, plan, models)",
        ),
        ("--verbose", "demo, train, tune, evaluate, compare, record, plan, models"),
        ("evaluate", "MODEL"),
        (
            "evaluate ball-nav --epsiodes 3",
            "'--epsiodes' (choose from --episodes, --seed, --json, --csv, --env)",
        ),
        ("evaluate ball-nav --episodes many", "--episodes INT"),
        ("compare grasp/BallNav-v0 --jobs abc", "--jobs: expected a whole number, got 'abc'"),
        ("record ball-nav a.mp4 --speed fast", "--speed: expected a number, got 'fast'"),
        ("evaluate ball-nav --episodes", "--episodes"),
        ("evaluate ball-nav --episodes 0", "--episodes: expected at least 1, got 0"),
        ("evaluate ball-nav --seed -1", "--seed: expected 0 or more, got -1"),
        ("evaluate bal-nav", "choose from ball-nav"),
        ("evaluate ball-nav --env grasp/Ball-v0", "choose from grasp/BallNav-v0"),
        ("evaluate ball-nav --env nowhere:Ball-v0", "no module 'nowhere'"),
        ("evaluate ball-nav --env CartPole-v1", "spaces do not match"),
        ("evaluate ball-nav --json .", "is a folder"),
        ("record ball-nav video.avi", ".mp4 or .gif"),
        ("record ball-nav video.mp4 --fps 0", "fps: expected"),
        ("record bal-nav video.mp4", "choose from ball-nav"),
        ("train grasp/Ball-v0 --steps 9 --out a.zip", "choose from grasp/BallNav-v0"),
        ("train grasp/BallNav-v0 --out a.zip", "--steps INT: expected it, or a --config FILE"),
        ("train --steps 9 --out a.zip", "ENV: expected it, or a --config FILE"),
        ("train grasp/BallNav-v0 --steps 9 --out a.zip --planner best", "planner: expected one of grasp, grasp-paper"),
        ("train grasp/BallNav-v0 --steps 9 --out a.zip --horizon 0", "--horizon: expected at least 1, got 0"),
        ("train grasp/BallNav-v0 --steps 9 --out a.zip --goal 1", "--goal: expected a JSON object"),
        ('train Pendulum-v1 --steps 9 --out a.zip --goal {"0":1}', "--goal: expected its --goal-tolerance"),
        (
            'train Pendulum-v1 --steps 9 --out a.zip --goal {"x":1} --goal-tolerance 1',
            "goal: expected an entry's index, or tolerance, weights, running, got 'x'",
        ),
        ('train Pendulum-v1 --steps 9 --out a.zip --goal {"7":1,"tolerance":1}', "goal: expected entries below"),
        (
            'train Pendulum-v1 --steps 9 --out a.zip --goal {"0":NaN} --goal-tolerance 1',
            "goal: target values, entry 0: expected a finite number, got nan",
        ),
        ("train Pendulum-v1 --steps 9 --out a.zip --resume", "--resume: expected with a goal"),
        ("train Pendulum-v1 --steps 9 --out a.zip --goal-tolerance 1", "goal_tolerance: expected with a goal"),
        ("train Pendulum-v1 --steps 9 --out a.zip", "--steps: expected more than 1,000"),
        ("train Pendulum-v1 --steps 9 --out a.zip --planner grasp", "planner: expected one that plans for rewards"),
        ("train FrozenLake-v1 --steps 9 --out a.zip", "action space: expected a Box"),
        (
            "train grasp/BallNav-v0 --steps 9 --out a.zip --eval-episodes 3",
            "--eval-episodes: expected with --eval-every",
        ),
        ("train Pendulum-v1 --steps 9 --out a.zip --env-kwargs g", "--env-kwargs: expected KEY=VALUE"),
        (
            "train grasp/BallNav-v0 --steps 9 --out a.zip --env-kwargs lay=1",
            "it cannot be made with the options {'lay': 1}",
        ),
        ("train grasp/BallNav-v0 --steps 9 --out a.zip --config b.json", "b.json: no such file"),
        ("train grasp/BallNav-v0 --steps 9 --out .", "is a folder"),
        ("record ball-nav video.mp4 --size 0", "size: expected 32 to 4096 pixels, got 0"),
        ("record ball-nav video.mp4 --speed 100", "at most 240 frames per second"),
        ("plan ball-nav --planner best", "--planner: expected one of own, grasp, grasp-paper, shooting"),
        ("plan ball-nav --out video.avi", ".mp4 or .gif"),
        ("demo --episodes -2", "expected at least 1, got -2"),
    ],
)
@pytest.mark.usefixtures("agent")
def test_a_usage_error_gets_one_line_with_the_valid_choices(arguments, named, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("grasp: ")
    assert err.count("\n") == 1
    assert named in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "evaluate {}",
        "record {} a.mp4",
        "plan {}",
        "compare grasp/BallNav-v0 --agents {}",
        "train --config {} --out a.zip",
    ],
)
def test_a_file_of_something_else_is_a_usage_error(command: str, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("junk.zip").write_text("junk")
    assert main(command.format("junk.zip").split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("grasp: ") and "junk.zip" in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["", "demo", "train", "tune", "evaluate", "compare", "record", "plan", "models"])
def test_help_describes_every_option(command, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([*command.split(), "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: grasp" in shown
    rows = [line.strip("│").strip() for line in shown.splitlines()]
    for row, following in pairwise(rows):  # a long option has its description on the next line
        if row.startswith("--") and row.endswith(("INT", "FILE", "ID", "JSON", "NAME", "FOLDER", "VALUE", "DISTANCE")):
            assert following and following[0].isalpha(), row


def test_evaluate_writes_what_the_library_finds(agent, capsys, tmp_path):
    paths = tmp_path / "new" / "a.json", tmp_path / "a.csv"
    arguments = f"evaluate ball-nav --episodes 3 --seed 7 --json {paths[0]} --csv {paths[1]}"
    assert main(arguments.split()) == 0
    content = json.loads(paths[0].read_text())
    same = evaluate(agent, ENV_ID, episodes=3, seed=7)
    assert [row["return"] for row in content["episodes"]] == [row.return_ for row in same.episodes]
    assert content["summary"]["success_end"] == same.summary()["success_end"] == 1.0
    assert content["env_id"] == ENV_ID
    assert len(paths[1].read_text().splitlines()) == 4
    assert "100.0 %" in capsys.readouterr().out


def test_another_environment_can_be_named(agent, tmp_path):
    agent.env_id = None
    assert main(["evaluate", "ball-nav", "--episodes", "1"]) == 2
    path = tmp_path / "a.json"
    trap = "grasp/BallNavTrap-v0"
    assert main(["evaluate", "ball-nav", "--episodes", "1", "--env", trap, "--json", str(path)]) == 0
    assert json.loads(path.read_text())["env_id"] == trap


def test_plan_prints_its_result_and_records_the_search(capsys, tmp_path):
    path = tmp_path / "a.mp4"
    assert main(["plan", "ball-nav", "--seed", "3", "--search", "--planner", "icem", "--out", str(path)]) == 0
    said = capsys.readouterr().out
    assert "seed 3: ICEM" in said and "good enough under all members" in said
    images = int(said.split(f"{path}: ")[1].split()[0])
    assert path.stat().st_size > 1000 and images >= 24  # two seconds of the plan
    assert main(["plan", "ball-nav", "--out", str(path)]) == 2
    assert "exists" in capsys.readouterr().err


def test_models_lists_all_bundled_models_and_baselines(capsys):
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in grasp_agent.bundled())
    assert said.count("@") == len(baselines())


@pytest.mark.usefixtures("agent")
def test_record_writes_a_video_and_replaces_it_only_by_force(capsys, tmp_path):
    path = tmp_path / "a.mp4"
    assert main(["record", "ball-nav", str(path), "--seed", "3"]) == 0
    assert "101 frames, success in 1 of 1" in capsys.readouterr().out
    first = path.read_bytes()
    assert main(["record", "ball-nav", str(path), "--seed", "4"]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_bytes() == first
    assert main(["record", "ball-nav", str(path), "--seed", "4", "--force"]) == 0
    assert path.read_bytes() != first


@pytest.mark.usefixtures("agent")
def test_demo_prints_each_outcome_and_describes_its_videos_even_twice(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["demo", "--episodes", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        for seed in (20_000, 20_001):
            assert any(line.startswith(f"  ball-nav, seed {seed}: success at the end of ") for line in lines)
        assert any(line.split()[:3] == ["ball-nav", ENV_ID, "2/2"] for line in lines)
        video = Path("demo") / "ball-nav.mp4"
        assert lines[-1].strip() == f"{video}: {grasp_agent.bundled()['ball-nav'].description}"
        assert [path.name for path in (tmp_path / "demo").iterdir()] == [video.name]


@pytest.mark.usefixtures("agent")
def test_demo_shows_some_models_next_to_a_baseline_in_one_video(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("grasp_agent.cli.demo._RIVALS", {"ball-nav": "random"})
    assert main(["demo", "--episodes", "2", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    played = [line.split(":")[0].strip() for line in lines if ", seed " in line]
    assert played == [f"{name}, seed {seed}" for seed in (20_000, 20_001) for name in ("ball-nav", "random")]
    assert lines[-1].endswith("A ball. Next to it random: success in 0/2 episodes.")
    width, height = imageio.v3.immeta(tmp_path / "ball-nav.mp4")["size"]
    assert width >= 2 * 320 > height


def test_the_demos_models_and_their_baselines_are_bundled():
    models, known = grasp_agent.bundled(), {(one.algorithm, one.env_id, one.steps) for one in baselines()}
    assert set(demo._DEFAULT_MODELS) <= set(models)
    for name, rival in demo._RIVALS.items():
        algorithm, steps = rival.split("@")
        assert (algorithm, models[name].env_id, int(steps)) in known


@pytest.mark.slow
def test_demo_in_several_processes_shows_what_one_does(capfd, tmp_path):
    assert main(["demo", "--episodes", "1", "--jobs", "2", "--out", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert {path.stem for path in tmp_path.iterdir()} == set(demo._DEFAULT_MODELS)
    assert out.count("1/1") >= 4


@pytest.mark.usefixtures("agent")
def test_demo_without_graphics_still_shows_its_table(capsys, monkeypatch, tmp_path):
    def broken(self):
        raise RuntimeError("no library\ncan draw here")

    monkeypatch.setattr(grasp_envs.ball_nav.BallNavEnv, "render", broken)
    assert main(["demo", "--episodes", "1", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "1/1" in out
    assert f"grasp: no video of ball-nav: {ENV_ID}: no library can draw here\n" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["evaluate ball-nav --json a.json", "record ball-nav a.mp4", "demo"])
def test_ctrl_c_ends_with_130_one_line_and_no_file(agent, arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    agent.interrupt_at = 30
    assert main(arguments.split()) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "grasp: interrupted"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class FakeAgent:
    """Stands for `GraspAgent` where only its calls matter."""

    said: list[Any]
    interrupt = False

    def __init__(self, policy, env, seed, device, tensorboard_log, **settings):
        type(self).said = [(policy, env, seed)]
        assert set(settings.values()) == {None}
        self.policy = SimpleNamespace(is_fitted=False)
        self.num_timesteps, self.env = 7, None

    @classmethod
    def load(cls, path, env, device):
        pass

    def learn(self, total_timesteps, callback, progress_bar, checkpoint):
        self.said.append((total_timesteps, progress_bar, checkpoint))
        self.policy.is_fitted = True
        if self.interrupt:
            raise KeyboardInterrupt

    def save(self, path):
        path.write_text("saved")


def test_train_learns_and_saves_and_replaces_no_file_unasked(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "GraspAgent", FakeAgent)
    out = tmp_path / "new" / "a"
    arguments = ["train", ENV_ID, "--steps", "9", "--out", str(out), "--seed", "4"]
    assert main(arguments) == 0
    assert FakeAgent.said == [("MultiInputPolicy", ENV_ID, 4), (9, False, None)]  # no bar where nobody watches
    assert out.with_suffix(".zip").read_text() == "saved"
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_train_resumes_where_it_was_stopped(capsys, monkeypatch, tmp_path):
    out = tmp_path / "a.zip"
    arguments = ["train", ENV_ID, "--out", str(out), "--resume", "--steps", "9"]
    out.write_text("no agent")
    assert main(arguments) == 2
    assert out.read_text() == "no agent"
    assert "a.zip" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 2
    monkeypatch.setattr(config, "GraspAgent", FakeAgent)
    assert main(arguments) == 0
    assert FakeAgent.said[1:] == [(9, False, out)]
    assert out.read_text() == "no agent"  # written by learning itself, on the way


def test_train_keeps_what_was_learned_before_ctrl_c(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "GraspAgent", type("Interrupted", (FakeAgent,), {"interrupt": True}))
    out = tmp_path / "a.zip"
    assert main(["train", ENV_ID, "--steps", "9", "--out", str(out)]) == 130
    assert out.read_text() == "saved"
    assert "saved what was learned in 7 steps" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [["--json", "a.json", "--csv", "a.json"], ["--json", "ball-nav"]])
def test_evaluate_does_not_write_over_its_own_files(agent, extra, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "ball-nav", "--episodes", "1", *extra]) == 2
    assert "expected two files that are not the model's" in capsys.readouterr().err


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """The usual handlers: a shell that starts the tests in the background lets them ignore Ctrl-C."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ("evaluate ball-nav --json a.json", "no figures were written"),
        ("record ball-nav a.mp4", "no video was written"),
        ("demo", "0 videos were written into demo"),
    ],
)
def test_signals_end_with_their_status_and_a_line_on_what_was_kept(
    agent, arguments, kept, number, status, said, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    play, before = agent.predict, signal.getsignal(number)

    def predict(*given, **named):
        if agent.calls == 30:
            os.kill(os.getpid(), number)
        return play(*given, **named)

    agent.predict = predict
    assert main(arguments.split()) == status
    assert capsys.readouterr().err.splitlines() == [f"grasp: {kept}", f"grasp: {said}"]
    assert signal.getsignal(number) is before
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ("evaluate ball-nav --episodes 2 --json {}", "a.json"),
        ("evaluate ball-nav --episodes 2 --csv {}", "a.csv"),
        ("record ball-nav {} --force", "a.mp4"),
        ("record ball-nav {} --force --size 32", "a.gif"),
        ("demo --episodes 1 --out .", "ball-nav.mp4"),
    ],
)
@pytest.mark.usefixtures("agent")
def test_a_full_disk_gets_one_line_and_leaves_the_old_file(arguments, path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path(path).write_text("old")
    with largest_file(100):
        assert main(arguments.format(path).split()) == 1
    said = capsys.readouterr().err
    assert said == f"grasp: {path}: cannot be written: the file is larger than the limit of this process (ulimit -f)\n"
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(path, "old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only on Linux")
def test_a_full_disk_under_stdout_gets_one_line():
    code = "import sys; from grasp_agent.cli.main import main; sys.exit(main(['--version']))"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    said = "grasp: standard output: cannot be written: no space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, said)


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ("demo --out .", "ball-nav.mp4"),
        (f"compare {ENV_ID} --out .", "report.png"),
        (f"compare {ENV_ID} --out .", "episodes"),
    ],
)
def test_files_that_cannot_be_replaced_are_refused_before_anything_is_played(
    arguments, taken, agent, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    Path(taken).touch() if taken == "episodes" else Path(taken).mkdir()
    assert main(arguments.split()) in (1, 2)
    said = capsys.readouterr().err
    assert taken in said and said.count("\n") == 1
    assert agent.calls == 0
    assert [path.name for path in tmp_path.iterdir()] == [taken]


@pytest.mark.parametrize("extra", ["--json a.json/b", "--json {}"])
@pytest.mark.usefixtures("agent")
def test_what_cannot_be_written_is_refused_before_the_work_starts(extra, agent, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text("old")
    assert main(["evaluate", "ball-nav", *extra.format("a" * 300).split()]) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Errno" not in said
    assert agent.calls == 0


def test_train_says_that_nothing_was_saved_before_the_first_fit(capsys, monkeypatch, tmp_path):
    class Early(FakeAgent):
        def learn(self, total_timesteps, callback, progress_bar, checkpoint):
            raise KeyboardInterrupt

    monkeypatch.setattr(config, "GraspAgent", Early)
    out = tmp_path / "new" / "a.zip"
    assert main(["train", ENV_ID, "--steps", "9", "--out", str(out)]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "grasp: nothing was saved: no model had been fitted in 7 steps (--resume keeps all steps)"
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_was_finished_says_so_and_names_another_seed(capsys, tmp_path):
    out = tmp_path / "a.zip"
    arguments = ["train", ENV_ID, "--steps", "5", "--out", str(out), "--resume"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"{out}: already 5 of 5 steps\n")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*arguments, "--seed", "3"]) == 0
    said = f"grasp: {out}: the training continues with seed 3 instead of 0\n"
    assert capsys.readouterr().err == said


def test_progress_is_lines_where_nobody_watches(capsys, monkeypatch):
    monkeypatch.setattr(console, "_SECONDS_PER_LINE", 0.05)
    with console.progress("playing", 20) as advance:
        advance(7)
        ended = time.monotonic() + 10
        said = ""
        while "\n" not in said and time.monotonic() < ended:
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert said.startswith("grasp: playing: 7 of 20, 0 s\n")


@pytest.mark.parametrize("command", ["train {} --steps 5 --out a.zip", "evaluate ball-nav --env {}", "compare {}"])
def test_a_module_that_is_missing_is_named(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(command.format("no_such_module:Some-v0").split()) == 2
    assert "no module 'no_such_module'" in capsys.readouterr().err

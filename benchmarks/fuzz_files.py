"""Damages every kind of file that this package reads, and checks what its readers do.

    python -m benchmarks.fuzz_files --mutations 1000

Each damaged file must be refused by a ValueError of one line that names it, or work: finite actions in bounds. It must
cost at most a second and 200 MB, and run no code. The exit status is 1 where one did anything else. The same seed makes
the same files.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro

import grasp_agent
from benchmarks import mutations as damage
from grasp_agent import (
    GRASP,
    Criteria,
    ExploreConfig,
    Goal,
    GraspAgent,
    MLPConfig,
    ReplanRule,
    TrainConfig,
    serialization,
)
from grasp_agent.agent.checkpoint import Checkpoint
from grasp_agent.agent.pixel_perception import PixelPerception
from grasp_agent.agent.settings import AgentSettings
from grasp_agent.evaluation.cache import Store
from grasp_agent.evaluation.config import TrainingConfig
from grasp_agent.evaluation.evaluate import Episode
from grasp_agent.evaluation.training import learning_curve
from grasp_agent.replay.image_buffer import ImageReplayBuffer
from grasp_agent.replay.offline import episodes_of
from grasp_agent.zoo import baselines
from grasp_agent.zoo.resumable import ResumableTraining

SECONDS, BYTES = 1.0, 200 * 2**20
"""What a file may cost: processor time [s], and memory beyond the start [bytes]."""
WATCHED = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
)
"""Audit events that show that code in a file was run."""
OUTCOMES = ("refused", "works", "other exception", "unnamed", "non-finite", "slow", "large", "ran code")
_SETTING = {"env": "grasp/BallNav-v0", "options": {}}
_NODES = 60  # of roadmaps: all pairs of nodes are joined when they are read


class Kind(NamedTuple):
    """A kind of file."""

    name: str
    """What it is."""
    write: Callable[[Path], Path]
    """Writes a sound file into a folder; returns its path."""
    read: Callable[[Path], object]
    """Reads a file, and uses what was read; raises AssertionError where that is not finite or out of bounds."""
    mutate: damage.Mutation
    """Damages the file's content."""


class Canary:
    """Notes events that show that code in a file was run; Python cannot remove it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._armed, self._known = False, set[str]()
        sys.addaudithook(self._hear)

    def arm(self) -> None:
        """Listens from now on; modules of packages that are imported now do not count."""
        self.seen.clear()
        self._known = {name.split(".")[0] for name in sys.modules} | {*sys.stdlib_module_names, "grasp_agent"}
        self._armed = True

    def disarm(self) -> bool:
        """Stops listening; returns whether anything was heard."""
        self._armed = False
        return bool(self.seen)

    def _hear(self, event: str, values: Any) -> None:
        if not self._armed:
            return
        foreign = event == "import" and str(values[0]).split(".")[0] not in self._known
        if foreign or event in WATCHED:
            self.seen.append(f"{event} {values[:1]}")


def _small(path: Path, agent: GraspAgent, *, experience: bool = False) -> Path:
    """Writes an agent with a roadmap of few nodes, which takes little time to read."""
    config, tensors = agent.snapshot(experience=experience).encode()
    for name in ("neighbours", "steps"):
        full = f"index.roadmap.0.{name}"
        if full in tensors:
            tensors[full] = tensors[full][:_NODES] % _NODES if name == "neighbours" else tensors[full][:_NODES]
    serialization.write(path, config, tensors)
    return path


def _agent(name: str) -> Callable[[Path], Path]:
    return lambda folder: _small(folder / "agent.zip", grasp_agent.load(name, device="cpu"))


def _checkpoint(folder: Path) -> Path:
    agent = grasp_agent.load("ball-nav", device="cpu")
    assert agent.policy.world is not None
    agent.trainer.dataset.add_all(agent.policy.world.rehearsal_episodes(2, seed=0, actions_each=1))
    return _small(folder / "checkpoint.zip", agent, experience=True)


def _image_checkpoint(folder: Path) -> Path:
    agent = grasp_agent.load("wall-pixels", device="cpu")
    perception, path = agent.perception, folder / "checkpoint.zip"
    assert isinstance(perception, PixelPerception)
    perception.open_buffer(path.with_name("checkpoint.zip.pictures"), {})
    images = np.random.default_rng(0).integers(0, 255, (9, *perception.layout.stacked), np.uint8)
    perception.buffer.add(images, np.zeros((9, sum(perception.layout.sizes)), np.float32), np.zeros((8, 2), np.float32))
    return _small(path, agent, experience=True)


def _images(folder: Path) -> Path:
    path = folder / "checkpoint.zip.pictures"
    buffer = ImageReplayBuffer((16, 16, 3), path)
    buffer.add(np.ones((9, 16, 16, 3), np.uint8), np.zeros((9, 0), np.float32), np.zeros((8, 2), np.float32))
    serialization.write(folder / "tensors.zip", {}, buffer.tensors())
    return path


def _read_images(path: Path) -> None:
    _, tensors = serialization.read(path.parent / "tensors.zip")
    buffer = ImageReplayBuffer.restore(tensors, (16, 16, 3), path)
    assert sum(len(images) for images in buffer.batches()) == 9


def _sampled(space: gym.Space[Any]) -> Any:
    """Returns an observation of a space, whose bounds may be those of a damaged file."""
    sample = space.sample()
    if isinstance(sample, dict):
        return {key: np.clip(value, -1e3, 1e3) for key, value in sample.items()}
    return np.clip(sample, -1e3, 1e3)


def _plays(model: Any) -> None:
    """Checks the action of a model for an observation of its own space."""
    if isinstance(model, GraspAgent):  # a search that a file makes longer within the limits costs time, no memory
        known = model.planner
        model.planner = replace(known, iterations=min(known.iterations, 1), opening=0)
    model.observation_space.seed(0)
    action = np.asarray(model.predict(_sampled(model.observation_space), deterministic=True)[0])
    space: Any = model.action_space
    assert np.isfinite(action).all() and (action >= space.low).all() and (action <= space.high).all(), action


def _read_checkpoint(path: Path) -> None:
    """Reads a checkpoint as `learn` does, with its images, and as any agent."""
    agent = GraspAgent.load(path, device="cpu")
    agent._resume(Checkpoint(path))
    _plays(agent)


def _baseline(folder: Path) -> Path:
    known = baselines.find("sac", "grasp/BallNav-v0")
    path = folder / "sac.zip"
    path.write_bytes((Path(str(baselines.__file__)).parent / known.file).read_bytes())
    return path


def _training(path: Path) -> ResumableTraining:
    settings = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 110, "batch_size": 8}
    env = gym.make("grasp/BallNav-v0")
    return ResumableTraining("sac", env, steps=200, seed=0, checkpoint=path, **settings)


def _begun(folder: Path) -> Path:
    _training(folder / "checkpoint").run(130)
    return folder / "checkpoint"


def _episodes(folder: Path) -> Path:
    rows = [Episode(seed, True, True, 1.5, 3, 2, 0.1, 0.2, None, 0.5, 1.25, "12345678") for seed in range(5)]
    Store(folder, _SETTING).keep("agent", (rows, [[0.1, 0.1, 0.1]] * 5))
    return next(folder.glob("*.json"))


def _read_episodes(path: Path) -> None:
    found = Store(path.parent, _SETTING).evaluation("agent", "a", "b", range(5))
    json.dumps(found.summary())


def _dataset(folder: Path) -> Path:
    random = np.random.default_rng(0)
    states, actions = random.normal(size=(41, 2)), random.uniform(-1, 1, (40, 2))
    known = {"observations": states[:-1], "next_observations": states[1:], "actions": actions}
    goals = {"achieved_goal": states[:-1], "next_achieved_goal": states[1:]}
    np.savez_compressed(folder / "data.npz", **known, **goals)  # type: ignore[arg-type]
    return folder / "data.npz"


def _trajectories(folder: Path) -> Path:
    random = np.random.default_rng(0)
    states, actions = random.normal(size=(40, 2)), random.uniform(-1, 1, (40, 2))
    np.savez_compressed(folder / "data.npz", observations=states, actions=actions, terminals=np.arange(40) % 20 == 19)
    return folder / "data.npz"


def _read_dataset(path: Path) -> None:
    agent = _AGENTS.setdefault("ball-nav", grasp_agent.load("ball-nav", device="cpu") if not _AGENTS else None)
    found = episodes_of(path, agent.action_space, agent.perception.rows)
    agent.perception.store(found, type(agent.trainer.dataset)(), 2)
    assert all(np.isfinite(episode.states).all() and np.abs(episode.actions).max() <= 1 for episode in found)


_AGENTS: dict[str, Any] = {}


def _curve(folder: Path) -> Path:
    path = folder / "schooled.json"
    content = {"files": ["sac-40.zip"], "curve": [[10, 0.0], [20, 0.5], [40, 1.0]]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _configuration(folder: Path) -> Path:
    settings = AgentSettings(
        goal=Goal.at({0: 1.0, 2: 0.5}, tolerance=0.1, weights={2: 3.0}),
        planner=GRASP(),
        horizon=20,
        model=MLPConfig(),
        train=TrainConfig(),
        explore=ExploreConfig(),
        criteria=Criteria(),
        rule=ReplanRule(),
    )
    config = TrainingConfig(env="grasp/BallNav-v0", steps=1000, env_kwargs={"layout": "open"}, settings=settings)
    config.write(folder / "configuration.json")
    return folder / "configuration.json"


KINDS = (
    Kind(
        "agent of vectors", _agent("ball-nav"), lambda p: _plays(GraspAgent.load(p, device="cpu")), damage.agent_damaged
    ),
    Kind("agent of a body", _agent("push-t"), lambda p: _plays(GraspAgent.load(p, device="cpu")), damage.agent_damaged),
    Kind(
        "agent of images",
        _agent("wall-pixels"),
        lambda p: _plays(GraspAgent.load(p, device="cpu")),
        damage.agent_damaged,
    ),
    Kind("baseline", _baseline, lambda p: _plays(baselines.read(p)), damage.agent_damaged),
    Kind("checkpoint", _checkpoint, _read_checkpoint, damage.agent_damaged),
    Kind("checkpoint with images", _image_checkpoint, _read_checkpoint, damage.agent_damaged),
    Kind("images of a checkpoint", _images, _read_images, damage.bytes_damaged),
    Kind("training of a baseline", _begun, lambda p: _plays(_training(p).model), damage.agent_damaged),
    Kind("episodes", _episodes, _read_episodes, damage.text_damaged),
    Kind("dataset", _dataset, _read_dataset, damage.dataset_damaged),
    Kind("learning curve", _curve, learning_curve, damage.text_damaged),
    Kind("configuration", _configuration, TrainingConfig.read, damage.text_damaged),
    Kind("dataset of OGBench", _trajectories, _read_dataset, damage.dataset_damaged),
)


def outcome(kind: Kind, path: Path, canary: Canary) -> tuple[str, str]:
    """Reads a file; returns one of `OUTCOMES`, and what was said."""
    before, began, said = _memory(), time.process_time(), ""
    canary.arm()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(path)
        found = "works"
    except ValueError as error:
        said = str(error)
        found = "refused" if str(path) in said and "\n" not in said and type(error) is ValueError else "unnamed"
    except AssertionError as error:
        found, said = "non-finite", repr(error)
    except Exception as error:
        found, said = "other exception", repr(error)
    seconds, peak, heard = time.process_time() - began, _memory(), canary.disarm()
    if heard:
        return "ran code", str(canary.seen)
    if seconds > SECONDS:
        return "slow", f"{seconds:.1f} s, {found}: {said}"
    if peak - before > BYTES:
        return "large", f"{(peak - before) / 2**20:.0f} MB, {found}: {said}"
    return found, said


def _memory() -> int:
    """Returns the peak of this process's memory since the last call, or where Linux does not say since its start."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        return 1024 * int(peak)
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(kind: Kind, count: int, seed: int, canary: Canary) -> tuple[Counter[str], list[str]]:
    """Reads damaged files of one kind; returns how often each outcome occurred, and a line for each wrong one."""
    counts, lines = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = kind.write(Path(folder))
        sound = path.read_bytes()
        kind.read(path)  # what is imported at the first use is imported now
        for number in range(count):
            random = np.random.default_rng((seed, [known.name for known in KINDS].index(kind.name), number))
            path.write_bytes(kind.mutate(sound, random))
            _memory()
            found, said = outcome(kind, path, canary)
            counts[found] += 1
            if found not in OUTCOMES[:2]:
                lines.append(f"{kind.name} {number}: {found}: {said[:600]}")
    return counts, lines


def main(mutations: int = 1000, seed: int = 0, only: str = "") -> int:
    """Prints how often each outcome occurred for each kind of file.

    Args:
        mutations: damaged files of each kind.
        seed: of the damages.
        only: a kind of file; empty for all.

    Returns:
        The exit status: 1 where a file did what it must not.
    """
    torch.set_num_threads(1)
    canary, wrong = Canary(), list[str]()
    print(f"{'':24}" + "".join(f"{name:>16}" for name in OUTCOMES))
    for kind in KINDS:
        if only in ("", kind.name):
            counts, lines = fuzz(kind, mutations, seed, canary)
            wrong += lines
            print(f"{kind.name:24}" + "".join(f"{counts[name]:>16}" for name in OUTCOMES), flush=True)
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(tyro.cli(main))

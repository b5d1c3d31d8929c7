"""Addresses of Ray clusters: one where nothing listens is refused at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from grasp_agent.cli.main import main
from grasp_agent.execution import engine

pytest.importorskip("ray")
from ray._private import services

from grasp_agent.execution.ray_cluster import check_reachable

ENV = "grasp/BallNav-v0"


@pytest.fixture
def nothing() -> Iterator[str]:
    """An address of this machine where nothing listens, as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_other_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Hides clusters that run on this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(services, "find_gcs_addresses", set)


@pytest.mark.parametrize("how", ["{}", "ray://{}"])
def test_an_address_where_nothing_listens_is_refused(how: str, nothing: str):
    with (
        pytest.raises(ConnectionError, match=r"^ray: no cluster can be reached at '"),
        engine("ray", how.format(nothing)),
    ):
        pass


@pytest.mark.parametrize("kept", ["in the environment", "in the file"])
def test_a_cluster_that_has_ended_is_not_waited_for(
    kept: str, nothing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if kept == "in the environment":
        monkeypatch.setenv("RAY_ADDRESS", nothing)
    else:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(nothing)
    with pytest.raises(ConnectionError, match=nothing.split(":")[1]):
        check_reachable("auto")


def test_the_command_says_so_in_one_line(nothing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["compare", ENV, "--agents", "random", "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main([*command, "--address", nothing]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"grasp: ray: no cluster can be reached at '{nothing}'") and said.count("\n") == 1


@pytest.mark.parametrize("address", ["here", ":6379", "ray://here"])
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ValueError, match=f"^address: expected HOST:PORT or auto, got '{address}'$"):
        check_reachable(address)


def test_where_something_listens_ray_is_asked():
    with socket.create_server(("", 0)) as server:
        check_reachable(f"127.0.0.1:{server.getsockname()[1]}")
        check_reachable(f"ray://127.0.0.1:{server.getsockname()[1]}")

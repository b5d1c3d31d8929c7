"""A comparison on a Dask cluster: any executor of the form of `concurrent.futures` will do.

    pip install distributed
    python dask_cluster.py

Here the cluster is two processes of this machine; `Client("tcp://...")` connects to one that runs elsewhere.
"""

from distributed import Client, LocalCluster

from grasp_agent import compare
from grasp_agent.evaluation import report


def main(episodes: int = 20) -> str:
    """Returns the report."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        found = compare(
            "grasp/BallNav-v0", ["grasp", "icem", "random"], episodes=episodes, executor=client.get_executor()
        )
    return report.markdown(found)


if __name__ == "__main__":
    print(main())

"""Jobs that a Slurm cluster could never start, tested with scripts in place of Slurm's commands."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.cluster.request_checks import Cluster, Node, Partition, Request, check_requests

A100 = Node(64, 500_000, frozenset({"a100"}), frozenset({"a100-80gb", "nvme"}))
V100 = Node(32, 180_000, frozenset({"v100"}), frozenset())
UNTYPED = Node(32, 180_000, frozenset({""}), frozenset())
PLAIN = Node(128, 250_000, frozenset(), frozenset())

CLUSTER = Cluster(
    partitions={
        "gpu": Partition(1440, (A100, V100), is_default=False),
        "old": Partition(None, (UNTYPED,), is_default=False),
        "main": Partition(300, (PLAIN,), is_default=True),
    },
    accounts={"mine": {"normal", "long"}},
    enforces_qos=True,
    limits_of_qos={"long": 2880},
    qos_beyond_partitions=frozenset({"endless"}),
)
REQUEST = Request("unlearn", "gpu", "mine", None, None, True, "a100", 4, 32_000, 1440)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"gpu_model": "v100"}, None),
        ({"gpu_model": None}, None),
        ({"partition": "old", "gpu_model": None, "minutes": 10**6}, None),
        ({"partition": None, "gpu": False, "gpu_model": None, "minutes": 300}, None),
        ({"account": "MINE", "qos": "long"}, None),
        ({"constraint": "a100-80gb&nvme"}, None),
        ({"constraint": "[fast*2]|slow"}, None),  # left to Slurm
        ({"partition": "main,gpu"}, None),
        ({"account": "mine,theirs"}, None),
        (
            {"minutes": 1441},
            "they request 1441 minutes, expected at most 1440 in partition gpu; set max_minutes: 1440 in slurm",
        ),
        (
            {"partition": "gpu,gpux"},
            "partition is 'gpux', expected one of gpu, main, old (slurm/site.yaml or --config)",
        ),
        ({"partition": "gpus"}, "partition is 'gpus', expected one of gpu, main, old (slurm/site.yaml or --config)"),
        ({"partition": None, "minutes": 9}, "partition main has no GPUs, expected one with GPUs"),
        ({"account": "theirs"}, "account is 'theirs', expected one of yours: mine"),
        ({"qos": "short"}, "qos is 'short', expected one of long, normal"),
        (
            {"qos": "long", "partition": "old", "gpu_model": None, "minutes": 3000},
            "expected at most 2880 with the qos long",
        ),
        (
            {"gpu_model": "h100"},
            "gpu_model is 'h100', and no node of partition gpu has such a GPU, expected one of a100, v100",
        ),
        (
            {"partition": "old"},
            "gpu_model is 'a100', and no node of partition old has such a GPU, expected an empty gpu_mo",
        ),
        (
            {"gpu_model": "v100", "memory_mb": 200_000},
            "they request 200000 MB of memory, but the largest node of partition",
        ),
        ({"cpus": 65}, "they request 65 CPUs, but the largest node of partition gpu has 64"),
        (
            {"constraint": "fast"},
            "constraint is 'fast', and no node of partition gpu has it, expected features of a100-80gb, nvme",
        ),
    ],
)
def test_a_job_that_can_never_start_is_reported_in_one_sentence(change: dict, fault: str | None) -> None:
    found = list(CLUSTER.faults_of(replace(REQUEST, **change)))
    assert len(found) == (fault is not None)
    if fault is not None:
        assert found[0].startswith("jobs of rule unlearn could never start: ") and fault in found[0]


def test_the_output_of_slurm_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        "gpu|1-00:00:00|64|500000|gpu:a100:4(S:0-1)|a100-80gb,nvme",
        "gpu|1-00:00:00|32|180000|gpu:v100:2|(null)",
        "old|infinite|32|180000|gpu:2|(null)",
        "main*|5:00:00|128|250000|(null)|(null)",
    )
    qos = "printf 'normal||\\nlong|2-00:00:00|PartitionTimeLimit\\n'"
    answers = {
        "sinfo": "".join(f"echo '{row}'\n" for row in rows),
        "scontrol": "echo 'AccountingStorageEnforce = associations,limits,qos'\n",
        "sacctmgr": f"case $* in *assoc*) echo 'mine|normal,long';; *) {qos};; esac\n",
    }
    for name, text in answers.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = Cluster.asked()
    assert found is not None
    assert {name: (part.limit, part.is_default) for name, part in found.partitions.items()} == {
        "gpu": (1440, False),
        "old": (None, False),
        "main": (300, True),
    }
    assert [node.gpu_models for node in found.partitions["gpu"].nodes] == [{"a100"}, {"v100"}]
    assert found.partitions["old"].nodes[0].gpu_models == {""} and not found.partitions["main"].nodes[0].gpu_models
    assert (found.accounts, found.limits_of_qos) == ({"mine": {"normal", "long"}}, {"long": 2880})
    assert found.enforces_qos and found.qos_beyond_partitions == {"long"}
    faults = check_requests([replace(REQUEST, gpu_model="h100")] * 2, REPOSITORY)
    assert faults is not None and len(faults) == 1 and "gpu_model is 'h100'" in faults[0]


def test_a_slurm_that_does_not_answer_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sinfo", "sacctmgr", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert check_requests([replace(REQUEST, gpu_model="h100")], REPOSITORY) is None

"""Test a cluster in one process, in virtual time, from one seed; for roost's own tests and for its users'."""

from __future__ import annotations

from roost.testing.cluster import Cluster, SimulatedRuntime
from roost.testing.histories import UNKNOWN, History, RecordedKV
from roost.testing.linearizability import NotLinearizable, check_linearizable
from roost.testing.loop import SimulatedLoop, Stuck
from roost.testing.models import IMPOSSIBLE, Model
from roost.testing.register import Register

__all__ = [
    "IMPOSSIBLE",
    "UNKNOWN",
    "Cluster",
    "History",
    "Model",
    "NotLinearizable",
    "RecordedKV",
    "Register",
    "SimulatedLoop",
    "SimulatedRuntime",
    "Stuck",
    "check_linearizable",
]

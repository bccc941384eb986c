"""Test a cluster in one process, in virtual time, from one seed; for roost's own tests and for its users'."""

from __future__ import annotations

from roost.testing.cluster import Cluster, SimulatedRuntime
from roost.testing.loop import SimulatedLoop, Stuck

__all__ = ["Cluster", "SimulatedLoop", "SimulatedRuntime", "Stuck"]

"""Promises of what all stems share: an empty kernel that says whether the library runs on a GPU."""

from ..ladder.gate import Gate

GATES = (Gate("common/probe", (), registers=16, occupancy=0.25, threads=1),)

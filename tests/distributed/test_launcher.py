"""Who was started with whom, and on which cores; no MPI in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocupy import distributed
from nanocupy.distributed import ONE, world
from nanocupy.distributed.cores import job_cores, own_cores, share_of
from nanocupy.distributed.launcher import launched_rank, launched_size
from nanocupy.engine.load import join
from nanocupy.engine.options import EngineOptions


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (launched_size(), launched_rank()) == (1, 0)
    assert world() is ONE
    assert distributed.world is world  # no submodule of the name has come in its place
    assert join(EngineOptions(), None) is ONE
    assert join(EngineOptions(tensor_parallel="auto"), None) is ONE
    with pytest.raises(ValueError, match=r"tensor_parallel=2, and 1 processes.*mpirun -n 2"):
        join(EngineOptions(tensor_parallel=2), None)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True, None])
def test_tensor_parallel_is_a_number_or_auto(value: object) -> None:
    with pytest.raises(ValueError, match="tensor_parallel"):
        EngineOptions(tensor_parallel=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["OMPI_COMM_WORLD_", "PMI_"])
def test_the_launcher_says_it_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv(f"{prefix}SIZE", "4")
    monkeypatch.setenv(f"{prefix}RANK", "3")
    assert (launched_size(), launched_rank()) == (4, 3)


@given(st.integers(1, 64), st.integers(1, 16))
def test_ranks_share_out_the_cores(count: int, ranks: int) -> None:
    cores = list(range(100, 100 + count))
    shares = [share_of(cores, rank, ranks) for rank in range(ranks)]
    assert {len(share) for share in shares} == {max(1, count // ranks)}
    assert all(set(share) <= set(cores) for share in shares)
    used = [core for share in shares for core in share]
    if count >= ranks:
        assert len(set(used)) == len(used)
    else:
        assert set(used) == set(cores)


def test_this_process_has_cores() -> None:
    assert own_cores() and job_cores(set(own_cores())) == own_cores()
    assert job_cores({1, 5}) == [1, 5]

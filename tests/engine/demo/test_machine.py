import pytest

from headgate.engine.demo.machine import describe, layout


@pytest.mark.parametrize(
    ("usable", "cpus", "budget", "server", "others"),
    [
        (1000, 1, 1000, {0}, {0}),
        (2000, 2, 2000, {0, 1}, {0, 1}),
        (1500, 8, 1500, set(range(8)), set(range(8))),  # a quota of 1.5 CPUs: nothing to set apart
        (4000, 4, 3000, {0, 1, 2}, {3}),
        (8000, 8, 4000, {0, 1, 2, 3}, {4, 5, 6, 7}),
        (64000, 64, 4000, {0, 1, 2, 3}, set(range(4, 64))),
    ],
)
def test_who_uses_which_cpus(usable, cpus, budget, server, others):
    got = layout(usable, frozenset(range(cpus)))
    assert (got.budget, got.server, got.others) == (budget, server, others)
    assert got.separate == (server != others)


def test_the_processor_is_named(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nmodel name\t: Fast One\nmodel name : Fast Two\n")
    assert describe(tmp_path).processor == "Fast One"

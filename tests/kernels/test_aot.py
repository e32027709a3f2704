"""Every shipped configuration compiles for every supported device, and fits its shared memory. No GPU is needed.

sm_90 (an H100) and sm_89 (the least shared memory) are compiled in every run, the others are marked ``slow``: all six
together are 670 compilations. As a table, with registers and spills: ``python -P -m perdure.kernels.aot``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

triton = pytest.importorskip("triton")

from perdure.kernels import aot  # noqa: E402

MODULES = aot.shipping()
OFTEN = (89, 90)
CASES = [
    pytest.param(operation, capability, marks=() if capability in OFTEN else pytest.mark.slow)
    for operation, capability in itertools.product(MODULES, aot.SHARED_LIMIT)
]
Jobs = dict[tuple[str, int], "Future[list[aot.Report]]"]


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest) -> Iterator[Jobs]:
    """All that the collected tests need is compiled in the background, a core each."""
    wanted = [item.callspec.params for item in request.session.items if item.module is request.module]
    with aot.pool() as workers:
        yield {
            (case["operation"], case["capability"]): workers.submit(
                aot.compile_shipped, MODULES[case["operation"]], case["capability"]
            )
            for case in wanted
        }


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("operation", "capability"), CASES)
def test_every_shipped_configuration_compiles_and_fits(operation: str, capability: int, jobs: Jobs) -> None:
    reports = jobs[operation, capability].result()
    assert reports, f"{operation} ships nothing for sm_{capability}; its table has no fallback"
    names = [report.name for report in reports]
    assert len(set(names)) == len(names), "two configurations bear one name"
    failed = [f"{report.name}: {report.failure}" for report in reports if report.failure]
    assert not failed, "\n".join(failed)
    limit = aot.SHARED_LIMIT[capability]
    over = [f"{report.name}: {report.shared_bytes}" for report in reports if report.shared_bytes > limit]
    assert not over, f"sm_{capability} has {limit} bytes of shared memory; too much is needed by {', '.join(over)}"

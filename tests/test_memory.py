"""Free memory is what the machine and every control group of the process leave."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from train.data.memory import free_ram_bytes

GB = 1 << 30
NAMES = {  # what the kernel calls limit, usage and pages of files
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def write_group(folder: Path, version: int, limit: int | str, usage: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(NAMES[version], (limit, usage), strict=False):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon {usage - cached}\n{NAMES[version][2]} {cached}\nshmem 0\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_decides(tmp_path: Path, version: int) -> None:
    membership, cgroups = tmp_path / "cgroup", tmp_path / "groups"
    root = cgroups / "memory" if version == 1 else cgroups
    membership.write_text("5:cpu,memory:/job/step\n0::/job/step\n" if version == 1 else "0::/job/step\n")
    machine = psutil.virtual_memory().available

    def free() -> int:
        return free_ram_bytes(cgroups, membership)

    assert free() == pytest.approx(machine, rel=0.2)  # nothing is limited
    write_group(root, version, 9223372036854771712 if version == 1 else "max", 3 * GB, 0)
    write_group(root / "job" / "step", version, 1 << 60, GB, 0)
    assert free() == pytest.approx(machine, rel=0.2)
    write_group(root / "job", version, 900 << 20, 700 << 20, 100 << 20)  # of the job, all of its steps
    assert free() == 300 << 20
    write_group(root / "job" / "step", version, 500 << 20, 400 << 20, 1 << 20)
    assert free() == 101 << 20
    write_group(root / "job" / "step", version, 500 << 20, 600 << 20, 0)
    assert free() == 0
    membership.write_text(membership.read_text().replace("/job/step", "/docker/0123"))  # its name outside the container
    write_group(root, version, 256 << 20, 6 << 20, 0)
    assert free() == 250 << 20
    write_group(root, version, "damaged", 0, 0)
    assert free() == pytest.approx(machine, rel=0.2)
    membership.unlink()
    assert free() == pytest.approx(machine, rel=0.2)


def test_this_process_has_some() -> None:
    assert 1 << 20 < free_ram_bytes() <= psutil.virtual_memory().total

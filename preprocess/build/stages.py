"""How long each stage of a build took, as a table."""

from __future__ import annotations

from preprocess.build.run_shards import Work


def describe_stages(work: Work, *, wall_seconds: float) -> list[str]:
    """A line a stage: seconds of a core, its share of them, ms a scan; then all of them together."""
    total = sum(work.seconds.values())
    if not work.num_scans or not total:
        return []
    lines = [f"{'stage':<10}{'core s':>9}{'share':>8}{'ms/scan':>10}"]
    for stage, spent in [*work.seconds.items(), ("total", total)]:
        lines.append(f"{stage:<10}{spent:>9.1f}{spent / total:>8.0%}{1000 * spent / work.num_scans:>10.1f}")
    memory = f"; peak memory of a worker {work.peak_memory_bytes / 1e6:.0f} MB" if work.peak_memory_bytes else ""
    lines.append(
        f"{work.num_scans} scans in {wall_seconds:.0f} s: {work.num_scans / max(wall_seconds, 1e-9):.1f} scans/s, "
        f"{work.num_scans / total:.1f} a core{memory}"
    )
    return lines

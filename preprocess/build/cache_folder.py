"""Lock, start, continue, clean up and finish a cache folder."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preprocess.build.engine import map_files
from shared.cache import (
    CACHE_JSON,
    FAILURES_CSV,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    Failure,
    describe_withdrawn,
    hash_content,
    num_shards,
    read_info,
    record_path,
    write_info,
)
from shared.csv_tables import encode_table
from shared.errors import CacheError
from shared.groups import GROUPS_CSV, Groups, encode_groups
from shared.schema import FORMAT_VERSION, SHARD_ROWS, CacheInfo, Sample, fingerprint
from shared.schema import Sequence as SequenceRow
from shared.store.hdf5_store import VIEWS_HDF5
from shared.store.lock import hold_lock
from shared.store.paths import is_file, is_litter, is_remote, list_files, read_bytes, remove_file, remove_folder
from shared.store.remote_lock import hold_remote_lock
from shared.store.storage import PARTIAL_SUFFIX, encode_metadata, hash_file, write_file
from shared.store.zarr_store import VIEWS_ZARR

# Names that a folder may hold before its first build: another build may have begun, or was killed.
CACHE_PARTS = {
    ".build",
    CACHE_JSON,
    "text",
    "records",
    VIEWS_ZARR,
    VIEWS_HDF5,
    SAMPLES_CSV,
    SEQUENCES_CSV,
    GROUPS_CSV,
    FAILURES_CSV,
    "README.md",
}
# What each revision of RenderSettings changed in the images.
REVISIONS = {
    5: "the crop sphere cuts faces pixel by pixel, not triangle by triangle",
}
SOFTWARE = ("numpy", "zarr", "h5py", "numcodecs", "pillow")

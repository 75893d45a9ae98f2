"""Stage 1: scans → cache. The only side that may import open3d.

Public, with examples in preprocess/README.md: the names below. Everything else is private and may change.
"""

from typing import TYPE_CHECKING

from shared.lazy_names import export_lazily

if TYPE_CHECKING:
    from preprocess.geometry.mesh import Mesh
    from preprocess.rendering.views import Views
    from preprocess.single_scan import read_scan, render

__all__ = ["Mesh", "Views", "read_scan", "render"]

__getattr__, __dir__ = export_lazily(
    __name__,
    {
        "Mesh": "preprocess.geometry.mesh",
        "Views": "preprocess.rendering.views",
        "read_scan": "preprocess.single_scan",
        "render": "preprocess.single_scan",
    },
)

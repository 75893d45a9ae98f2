"""Stage 2: cache → results. Never imports preprocess or open3d.

Public, with examples in train/README.md: the names below. Everything else is private and may change.
"""

from typing import TYPE_CHECKING

from shared.lazy_names import export_lazily

if TYPE_CHECKING:
    from shared.cache import Cache, open_cache
    from shared.errors import FacetError
    from train.api.dataset import CacheDataset, CacheLoader
    from train.api.fitting import FitResult, fit
    from train.api.model import Model, ZeroShotModel, load_model

__all__ = [
    "Cache",
    "CacheDataset",
    "CacheLoader",
    "FacetError",
    "FitResult",
    "Model",
    "ZeroShotModel",
    "fit",
    "load_model",
    "open_cache",
]

__getattr__, __dir__ = export_lazily(
    __name__,
    {
        "Cache": "shared.cache",
        "CacheDataset": "train.api.dataset",
        "CacheLoader": "train.api.dataset",
        "FacetError": "shared.errors",
        "FitResult": "train.api.fitting",
        "Model": "train.api.model",
        "ZeroShotModel": "train.api.model",
        "fit": "train.api.fitting",
        "load_model": "train.api.model",
        "open_cache": "shared.cache",
    },
)

"""One file a data set: where its scans are and what they are labelled. Listing opens no scan."""

from preprocess.datasets.bu3dfe import BU3DFE
from preprocess.datasets.bu4dfe import BU4DFE
from preprocess.datasets.folder import FOLDER
from preprocess.scan import DatasetReader

DATASETS: dict[str, DatasetReader] = {dataset.name: dataset for dataset in (BU3DFE, BU4DFE, FOLDER)}

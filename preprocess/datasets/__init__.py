"""One file per data set: where its scans are and what they are labelled. Listing opens no scan, or only a few."""

from preprocess.datasets.bosphorus import BOSPHORUS
from preprocess.datasets.bp4d import BP4D
from preprocess.datasets.bp4dplus import BP4DPLUS
from preprocess.datasets.bu3dfe import BU3DFE
from preprocess.datasets.bu4dfe import BU4DFE
from preprocess.datasets.folder import FOLDER
from preprocess.datasets.fourdme import FOURDME
from preprocess.datasets.scan import DatasetReader

DATASETS: dict[str, DatasetReader] = {
    dataset.name: dataset for dataset in (BU3DFE, BOSPHORUS, BU4DFE, BP4D, BP4DPLUS, FOURDME, FOLDER)
}

"""The layouts in which synthetic faces can be written, by the data sets' names."""

from __future__ import annotations

from preprocess.synth.bosphorus import BOSPHORUS
from preprocess.synth.bp4d import BP4D, BP4DPLUS
from preprocess.synth.bu3dfe import BU3DFE
from preprocess.synth.bu4dfe import BU4DFE
from preprocess.synth.folder import FOLDER
from preprocess.synth.fourdme import FOURDME
from preprocess.synth.population import Layout

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (BU3DFE, BOSPHORUS, BU4DFE, BP4D, BP4DPLUS, FOURDME, FOLDER)
}

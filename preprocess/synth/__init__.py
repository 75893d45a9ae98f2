"""Synthetic faces in real data sets' file layouts: procedural heads, expressions built from facial action units."""

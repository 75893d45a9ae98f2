"""Meshes: arrays, compiled loops, normals, welding, and the z-buffer."""

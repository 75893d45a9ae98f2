"""Geometry of meshes: the mesh itself, triangles, vertex normals, the z-buffer and rigid fits."""

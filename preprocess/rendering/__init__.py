"""From an aligned mesh to its images: a compiled z-buffer, without GL or a display."""

"""The model: an image tower, the fusion of views, the head, and the tables that name them."""

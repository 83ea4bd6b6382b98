"""Stores of image embeddings and their search."""

TOP_K = 50  # images that a search returns by default

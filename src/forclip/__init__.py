"""Find the images that contain an object, in your own large image set, by free text."""

__version__ = "0.1.0"

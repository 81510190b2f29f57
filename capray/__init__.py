"""capray: the CAP theorem as a measured, reproducible experiment."""

__version__ = "0.1.0"

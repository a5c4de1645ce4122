"""Written by CMake beside the extension."""

MLX: str

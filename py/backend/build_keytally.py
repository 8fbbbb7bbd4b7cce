"""Builds the package by maturin. Without Rust, fails with one sentence.

Without Rust, maturin alone would try to download a toolchain.
"""

from __future__ import annotations

import functools
import os
import shutil
from typing import Any, Callable

import maturin

MISSING = (
    "keytally has no prebuilt wheel for this Python and system, and Rust is missing to build one: "
    "install Rust (https://rustup.rs), or use a Python and a system with a wheel "
    "listed at https://pypi.org/project/keytally/#files"
)


def require_rust(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that raises `SystemExit` if cargo is missing."""

    @functools.wraps(hook)
    def run(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if not shutil.which(os.environ.get("CARGO", "cargo")):
            raise SystemExit(MISSING)
        return hook(*arguments, **options)

    return run


build_sdist = maturin.build_sdist
get_requires_for_build_sdist = maturin.get_requires_for_build_sdist
build_editable = require_rust(maturin.build_editable)
build_wheel = require_rust(maturin.build_wheel)
get_requires_for_build_editable = require_rust(maturin.get_requires_for_build_editable)
get_requires_for_build_wheel = require_rust(maturin.get_requires_for_build_wheel)
prepare_metadata_for_build_editable = require_rust(maturin.prepare_metadata_for_build_editable)
prepare_metadata_for_build_wheel = require_rust(maturin.prepare_metadata_for_build_wheel)

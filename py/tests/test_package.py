"""The installed package: a wheel for every Python with a GIL, and only extras have dependencies."""

import ast
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import pytest

import keytally
from keytally import Gate, Limiter

PACKAGE = distribution("keytally")


def test_wheel_uses_stable_abi_unless_free_threaded():
    tags = re.findall(r"^Tag: (.*)$", PACKAGE.read_text("WHEEL"), re.MULTILINE)
    assert tags
    # A free-threaded Python has no stable ABI, so it needs its own wheel.
    expected = "cp39-abi3-" if not sysconfig.get_config_var("Py_GIL_DISABLED") else "cp3"
    assert all(tag.startswith(expected) for tag in tags)


def test_only_extras_have_dependencies():
    extras = PACKAGE.metadata.get_all("Provides-Extra")
    assert sorted(extras) == [
        "django",
        "fastapi",
        "flask",
        "limits",
        "rest-framework",
        "spectacular",
    ]
    named = {
        extra
        for text in PACKAGE.requires
        for extra in re.findall(r"extra == ['\"]([\w-]+)['\"]$", text)
    }
    assert named == set(extras)
    assert all("extra == " in text for text in PACKAGE.requires)


def test_build_without_rust_says_that_it_is_missing(tmp_path):
    pytest.importorskip("maturin")
    backend = Path(__file__).parents[1] / "backend"
    for hook in ("get_requires_for_build_wheel()", "build_wheel('.')", "build_editable('.')"):
        done = subprocess.run(
            [sys.executable, "-c", f"import build_keytally\nbuild_keytally.{hook}"],
            env={"PATH": str(tmp_path), "PYTHONPATH": str(backend)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        [sentence] = done.stderr.splitlines()
        assert "Rust is missing to build one: install Rust (https://rustup.rs)" in sentence
        assert "https://pypi.org/project/keytally/#files" in sentence


def test_package_has_stubs_and_type_marker():
    files = {str(file) for file in PACKAGE.files}
    assert {"keytally/py.typed", "keytally/_native.pyi"} <= files


def test_import_loads_neither_typing_nor_logging():
    code = "import sys, keytally; print(*{'inspect', 'logging', 'typing'} & sys.modules.keys())"
    environment = {"PYTHONPATH": str(Path(keytally.__file__).parents[1])}
    # Without `site`, which may load them itself.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n"


def imports(path):
    """Return the modules of the package that a module imports, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "keytally":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("keytally."):
            found.add(node.module.partition(".")[2])
    return found


def test_modules_have_no_import_cycle():
    paths = list(Path(keytally.__file__).parent.glob("*.py*"))
    modules = {path.stem: imports(path) for path in paths if path.suffix in (".py", ".pyi")}
    assert "_web" in modules["asgi"]
    while leaves := [name for name, used in modules.items() if not used & modules.keys()]:
        for name in leaves:
            del modules[name]
    assert modules == {}


@pytest.mark.parametrize("count", [1000, 100_000])
def test_size_per_entry_is_as_documented(tmp_path, pepper, count):
    gate = Gate.create(tmp_path / "api.gate", pepper=pepper, keys=count)
    limiter = Limiter.create(tmp_path / "addresses.limiter", "5/minute", count)
    of_gate, of_limiter = (table.path.stat().st_size / count for table in (gate, limiter))
    # The first page of each file, 4,096 bytes, is its header.
    assert of_gate - 4096 / count < 72.1
    # A small limiter has the size of one for up to 16 times as many subjects.
    assert of_limiter - 4096 / count < 28 * (16 if count <= 1024 else 1)

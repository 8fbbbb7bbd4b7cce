"""Builds the module as an administrator does, with nginx's headers and an installed library.

`KEYTALLY_TEST_NGINX_FOLDER` is the folder to build in. It holds the library in `prefix`.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

# nginx's build does not work in paths with blanks.
LINKS = tempfile.TemporaryDirectory(prefix="keytally-")
FOLDER, ADAPTER = Path(LINKS.name, "build"), Path(LINKS.name, "nginx")
FOLDER.symlink_to(os.environ["KEYTALLY_TEST_NGINX_FOLDER"])
ADAPTER.symlink_to(Path(__file__).resolve().parent.parent)
MODULE = "ngx_http_keytally_module.so"


def run(command, **options):
    """Runs a command. Its output is part of the error if it fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout.strip()


def module():
    """Builds the module by the commands of its README, and returns its path.

    The folder of modules does not exist before.
    """
    sources, modules = FOLDER / "src", FOLDER / "modules"
    for folder in (sources, modules):
        shutil.rmtree(folder, ignore_errors=True)
    commands = (ADAPTER / "README.md").read_text().split("```sh\n")[1].split("```")[0]
    for text, local in (
        ("apt-get install", "true"),
        ("/tmp/nginx-src", shlex.quote(str(sources))),
        ("/path/to/adapters/nginx", str(ADAPTER)),
        ("/usr/lib/nginx/modules", shlex.quote(str(modules))),
    ):
        assert text in commands, f"the module's README does not contain {text}"
        commands = commands.replace(text, local)
    pkg_config = str(FOLDER / "prefix/lib/pkgconfig")
    run(["sh", "-ec", commands], env={**os.environ, "PKG_CONFIG_PATH": pkg_config})
    return str(modules / MODULE)


def objects():
    """Returns the folder of the module's object files."""
    return str(FOLDER / "src/objs/addon/src")


def sanitized():
    """Builds the module again, with AddressSanitizer and UndefinedBehaviorSanitizer.

    Returns its path, and that of the library to load first.
    """
    folder = FOLDER / "sanitized"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(FOLDER / "src", folder, symlinks=True)
    compiler = "cc -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    make = ["make", "-f", "objs/Makefile", "--always-make", f"objs/{MODULE}", f"CC={compiler}"]
    run(make, cwd=folder)
    return str(folder / "objs" / MODULE), run(["cc", "-print-file-name=libasan.so"])

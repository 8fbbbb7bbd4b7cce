"""A cluster of PostgreSQL in a temporary folder, of the programs that Debian installs."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

# The user that runs the programs if root runs the tests: `initdb` refuses to run as root.
USER = "daemon"


class Cluster:
    """A running cluster. It listens on a Unix socket only."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())
        self.folder.chmod(0o755)
        self.programs = max(Path("/usr/lib/postgresql").glob("*/bin/initdb")).parent
        self.databases = 0
        data = self.folder / "data"
        data.mkdir()
        if os.getuid() == 0:
            shutil.chown(self.folder, USER)
            shutil.chown(data, USER)
        self.run("initdb", "--username=keytally", "--auth=trust", "--no-sync")
        self.control("start")

    def run(self, program: str, *arguments: str) -> None:
        command = [self.programs / program, "--pgdata", self.folder / "data", *arguments]
        if os.getuid() == 0:
            command = ["setpriv", f"--reuid={USER}", "--clear-groups", *command]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def control(self, action: str) -> None:
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off "
            "-c max_connections=300"
        )
        log = self.folder / "log.txt"
        self.run("pg_ctl", action, "--wait", "--mode=immediate", "--log", log, "--options", options)

    def url(self, database: str) -> str:
        return f"postgres://keytally@localhost/{database}?host={self.folder}"

    def database(self) -> str:
        """Makes an empty database. Returns its URL."""
        self.databases += 1
        name = f"list_{self.databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self.url(name)

    def stop(self) -> None:
        self.control("stop")
        shutil.rmtree(self.folder)

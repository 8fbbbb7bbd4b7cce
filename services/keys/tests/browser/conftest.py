"""A service with a list of keys, and Chromium."""

import json
import os
import re
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from playwright.sync_api import sync_playwright

# The databases on which every test runs.
DATABASES = os.environ.get("KEYTALLY_TEST_DATABASES", "sqlite").split()
PROGRAM = os.environ["KEYTALLY_TEST_PROGRAM"]
CHROMIUM = os.environ["KEYTALLY_TEST_CHROMIUM"]
PLANS = [
    "default=100/minute, 1000/hour; team: 50000/day",
    "pro=1000/minute, 20000/hour; team: 90000/day",
]


class Service:
    """A service in a folder of its own."""

    def __init__(
        self, folder: Path, *options: str, database: str = "", plans=PLANS, capacity: int = 0
    ):
        self.folder = folder
        plan_options = [word for plan in plans for word in ("--plan", plan)]
        self.database = database
        self.environment = {**os.environ, "KEYTALLY_DATABASE": database}
        if not database:
            del self.environment["KEYTALLY_DATABASE"]
        if capacity:
            data = folder / "data"
            data.mkdir(mode=0o700)
            (data / "pepper").touch(mode=0o600)
            (data / "pepper").write_text("5a" * 32)
            command = [PROGRAM, "create", "api.gate", "--keys", str(capacity), "--scope", "read"]
            command += [*plan_options, "--pepper-file", "pepper"]
            subprocess.run(command, cwd=data, check=True, capture_output=True)
        arguments = ["serve", "--listen", "127.0.0.1:0", "--data", "data", "--scope", "read"]
        arguments += plan_options
        self.process = subprocess.Popen(
            [PROGRAM, *arguments, "--failures", "off", *options],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stdout:
            if found := re.match(r"Listening on http://127\.0\.0\.1:(\d+)", line):
                break
        self.port = int(found[1])
        self.url = f"http://localhost:{self.port}"

    def run(self, *arguments: str) -> str:
        command = [PROGRAM, *arguments, "--data", "data"]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def link(self, *arguments: str) -> str:
        return self.run("keys", "link", "--public-url", self.url, *arguments).split()[0]

    def make_keys(self, count: int) -> list[str]:
        """Makes keys of the first team by the API. Returns their secrets."""
        token = self.run("keys", "token", "create", "test", "--team", "1").split()[0]
        headers = {"X-API-Key": token, "Content-Type": "application/json"}
        secrets = []
        for number in range(count):
            body = json.dumps({"name": f"key {number}", "env": "test"}).encode()
            url = f"http://127.0.0.1:{self.port}/keys/api/v1/keys"
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request) as response:
                secrets.append(json.load(response)["key"])
        return secrets

    def connect(self):
        """Returns a connection with the database, to be closed."""
        if self.database:
            return closing(psycopg.connect(self.database))
        return closing(sqlite3.connect(self.folder / "data/keys.db", timeout=10))

    def query(self, query: str) -> str:
        """Returns a query with the placeholders of the database."""
        return query.replace("?", "%s") if self.database else query

    def change(self, query: str, *values: object) -> None:
        """Changes the database, for what a test cannot wait for."""
        with self.connect() as database:
            database.execute(self.query(query), values)
            database.commit()

    def use(self, name: str, minutes: dict[int, tuple[int, int]]) -> None:
        """Adds usage of a key: admitted and denied requests, by minutes before now."""
        now = int(time.time())
        uses = [(now - 60 * back, *counts) for back, counts in minutes.items()]
        self.add_uses(name, uses)
        self.change('update "key" set last_used_s = ? where name = ?', now - 30, name)

    def add_uses(self, name: str, uses: list[tuple[int, ...]]) -> None:
        """Adds usage of a key: the second, and admitted, denied and old requests."""
        with self.connect() as database:
            cursor = database.execute("select * from usage limit 0")
            columns = [column[0] for column in cursor.description]
            find = self.query('select key_id from "key" where name = ? order by team_id')
            (number,) = database.execute(find, [name]).fetchone()
            insert = f"insert into usage values ({','.join('?' * len(columns))})"
            for index, (at, admitted, denied, *old) in enumerate(uses):
                for width, length in (("minute", 60), ("hour", 3600), ("day", 86400)):
                    row = {"width": width, "key_id": number, "start_s": at - at % length}
                    row |= {"machine": f"test-{index}", "requests": admitted, "units": admitted}
                    row |= {"denied_key": denied, "old_secret": sum(old)}
                    values = [row.get(column, 0) for column in columns]
                    database.execute(self.query(insert), values)
            database.commit()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="session")
def cluster():
    started = Cluster()
    yield started
    started.stop()


@pytest.fixture(params=DATABASES)
def service(request, tmp_path):
    database = ""
    if request.param == "postgres":
        database = request.getfixturevalue("cluster").database()
    started = Service(tmp_path, database=database)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def chromium():
    # Pictures have the same fonts on each machine.
    fonts = {**os.environ, "FONTCONFIG_FILE": str(Path(__file__).with_name("fonts.conf"))}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], env=fonts
        )
        yield browser
        browser.close()


@pytest.fixture(params=[True, False], ids=["script", "plain"])
def has_script(request):
    return request.param


@pytest.fixture
def open_page(chromium):
    """Opens a page, and fails if it reports an error."""
    contexts, errors = [], []

    def open_page(**options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))

        def report(message):
            is_status = re.search("status of (4..|503)", message.text)
            if message.type == "error" and not is_status:
                errors.append(message.text)

        page.on("console", report)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []

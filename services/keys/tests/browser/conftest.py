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

import pytest
from playwright.sync_api import sync_playwright

PROGRAM = os.environ["KEYTALLY_TEST_PROGRAM"]
CHROMIUM = os.environ["KEYTALLY_TEST_CHROMIUM"]
PLANS = [
    "default=100/minute, 1000/hour; team: 50000/day",
    "pro=1000/minute, 20000/hour; team: 90000/day",
]


class Service:
    """A service in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        arguments = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            "data",
            "--scope",
            "read",
            "--failures",
            "off",
        ]
        for plan in PLANS:
            arguments += ["--plan", plan]
        self.process = subprocess.Popen(
            [PROGRAM, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        for line in self.process.stdout:
            if found := re.match(r"Listening on http://127\.0\.0\.1:(\d+)", line):
                break
        self.port = int(found[1])
        self.url = f"http://localhost:{self.port}"

    def run(self, *arguments: str) -> str:
        command = [PROGRAM, *arguments, "--data", "data"]
        return subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, text=True
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

    def change(self, query: str, *values: object) -> None:
        """Changes the database, for what a test cannot wait for."""
        with closing(sqlite3.connect(self.folder / "data/keys.db", timeout=10)) as database:
            database.execute(query, values)
            database.commit()

    def use(self, key_id: str, minutes: dict[int, tuple[int, int]]) -> None:
        """Adds usage of a key: admitted and denied requests, by minutes before now."""
        with closing(sqlite3.connect(self.folder / "data/keys.db", timeout=10)) as database:
            columns = [column[1] for column in database.execute("pragma table_info(usage)")]
            (number,) = database.execute(
                'select "key".key_id from "key" join log on log.key_id = "key".key_id '
                "where log.action = 'key.create' and \"key\".name = ?",
                [key_id],
            ).fetchone()
            now = int(time.time())
            for back, (admitted, denied) in minutes.items():
                at = now - 60 * back
                for width, length in (("minute", 60), ("hour", 3600), ("day", 86400)):
                    row = {"width": width, "key_id": number, "start_s": at - at % length}
                    row |= {"machine": f"test-{back}", "requests": admitted, "units": admitted}
                    row["denied_key"] = denied
                    database.execute(
                        f"insert into usage values ({','.join('?' * len(columns))})",
                        [row.get(column, 0) for column in columns],
                    )
            database.execute(
                'update "key" set last_used_s = ? where key_id = ?', [now - 30, number]
            )
            database.commit()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def service(tmp_path):
    started = Service(tmp_path)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
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
            if message.type == "error" and "status of 4" not in message.text:
                errors.append(message.text)

        page.on("console", report)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []

"""Eight screens look as the pictures in docs/pictures/keys, which the guide shows.

Names, counts and the order of keys are known. What differs from run to run is replaced before
Chromium sees it: ids, secrets, addresses, and times, which are moved to a fixed moment.
"""

import io
import os
import re
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageFilter
from steps import leave, sign_in

from conftest import PROGRAM, Service

FOLDER = Path(__file__).parents[4] / "docs/pictures/keys"
OUTPUT = os.environ.get("KEYTALLY_TEST_PICTURES")
WRITES = "KEYTALLY_WRITE_PICTURES" in os.environ
SCREENS = ["keys", "new", "secret", "key", "rotate", "revoke", "team", "log"]
SCHEMES = ["light", "dark"]
WIDTHS = [1280, 390]
ALL = [(screen, scheme, width) for screen in SCREENS for scheme in SCHEMES for width in WIDTHS]
# Each screen once, with another scheme and another width than its neighbor.
SOME = [ALL[4 * index + (0, 3, 1, 2)[index % 4]] for index in range(len(SCREENS))]
CHOSEN = ALL if WRITES or "KEYTALLY_LONG" in os.environ else SOME

# A pixel differs if one of its colors does by more than this, of 255. Before, both pictures are
# blurred by a pixel: the edges of letters differ between versions of Chromium.
COLOR = 14
# The pixels that may differ.
PIXELS = 20

NOW = datetime(2027, 1, 15, 10, 0, tzinfo=timezone.utc)
HOUR = 3600
DAY = 24 * HOUR

# Keys in the order in which they are made: name, last characters, environment, plan, lifetime in
# days, age and last use in seconds.
KEYS = [
    ("old importer", "9fXd", "live", "default", "never", 200 * DAY, 120 * DAY),
    ("nightly export", "b2Tq", "live", "default", "365", 80 * DAY, 9 * HOUR),
    ("partner Nordwind", "Lm4e", "live", "pro", "30", 20 * DAY, 3 * HOUR),
    ("mobile app", "x81c", "test", "default", "90", 6 * DAY, 40 * 60),
    ("web shop", "Wq7Z", "live", "pro", "90", 3 * DAY, 120),
    ("billing service", "k3Pd", "live", "pro", "90", 2 * DAY, 20),
]
# The requests of each hour of a day, the present one last.
DAYS = {
    "billing service": [
        *[(140, 0), (120, 0), (90, 0), (60, 0), (40, 0), (30, 0), (30, 0), (50, 0)],
        *[(120, 0), (220, 0), (330, 4), (410, 20), (430, 60), (400, 90), (380, 30), (360, 8)],
        *[(340, 0), (350, 0), (370, 12), (390, 40), (350, 5), (280, 0), (230, 0), (90, 0)],
    ],
    "web shop": [(20 + 9 * (hour % 7), 0) for hour in range(24)],
    "mobile app": [(0, 0)] * 14 + [(hour * 3, hour % 3) for hour in range(10)],
    "nightly export": [(0, 0)] * 14 + [(900, 0)] + [(0, 0)] * 9,
    "partner Nordwind": [(50, 50 * (hour > 18)) for hour in range(24)],
}


class World:
    """A team with keys, members and a log, all of them known."""

    def __init__(self, service, page, other):
        self.service, self.page = service, page
        sign_in(page, service)
        # A key of another team is made for each of its pictures.
        service.run("keys", "team", "create", "Acme")
        sign_in(other, service, *["--team", "2", "--user", "ann@example.com", "--role", "owner"])
        self.pages = {screen: other if screen == "secret" else page for screen in SCREENS}
        for name, role in (("ben@example.com", "admin"), ("cleo@example.com", "viewer")):
            service.run("keys", "member", "set", "1", name, "--role", role)
        sign_in(page, service, *["--team", "1", "--user", "ann@example.com", "--role", "owner"])
        for name, _, env, plan, lifetime, *_ in KEYS:
            page.goto(service.url + "/keys/new")
            page.fill("#name", name)
            page.fill("#env", env)
            page.check(f"input[name=plan][value='{plan}']")
            page.check(f"input[name=lifetime][value='{lifetime}']")
            page.click("text=Make key")
            secret = page.input_value("#secret")
            at = leave(page)
        page.goto(at + "/rotate")
        page.check("text=24 hours")
        page.click("text=Rotate and show")
        leave(page)
        page.goto(at + "/edit")
        page.fill("#note", "Owner: payments team. Runs in the cluster eu-1.")
        page.click("text=Save")
        page.goto(service.url + "/keys/team")
        page.fill("#user", "dora@example.com")
        page.click("text=Make the invitation")
        self.id = at[-11:]
        # The meters show some use: one request of a high cost.
        command = [PROGRAM, "check", "data/api.gate", "--pepper-file", "data/pepper"]
        command += ["--cost", "41000"]
        subprocess.run(command, cwd=service.folder, input=secret, text=True, check=True)
        self.wait_for_uses(at)
        for each in (page, other):
            each.route(re.compile("/keys"), self.replace)

    def wait_for_uses(self, at):
        """Waits until the service has counted the request, so that it does not add it later."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.page.goto(at)
            if self.page.locator(".sums b").first.inner_text() == "1":
                return
            time.sleep(0.5)
        raise AssertionError("the request is not counted")

    def set_times(self):
        """Replaces the times and the uses by known ones."""
        service = self.service
        # The hour must not end before the picture is taken, and must have begun.
        if not 0 < int(time.time()) % HOUR < HOUR - 15:
            time.sleep(16)
        self.now = now = int(time.time())
        service.change("delete from usage")
        # No sign-in is shown as a new one.
        service.change("update session set shown_seq = 1000000")
        service.change("delete from log where actor_kind = 'reconcile'")
        for name, hint, _, _, lifetime, age, used in KEYS:
            end = None if lifetime == "never" else now - age + int(lifetime) * DAY + 600
            service.change(
                'update "key" set created_s = ?, last_used_s = ?, not_after_s = ?, '
                "last_characters = ? where name = ? and team_id = 1",
                *(now - age, now - used, end, hint, name),
            )
            first = now - now % HOUR - 23 * HOUR
            # The old secret of the one key that is rotated was used in the last hours.
            old = [0] * 21 + [7] * 3 if name == "billing service" else [0] * 24
            uses = [
                (first + HOUR * hour, *counts, old[hour])
                for hour, counts in enumerate(DAYS.get(name, []))
            ]
            service.add_uses(name, uses)
        service.change('update "key" set rotated_s = ? where rotated_s > 0', now - 2 * HOUR)
        service.change("update member set added_s = ?", now - 201 * DAY)
        joined = "update member set joined_s = ?, seen_s = ? where joined_s > 0"
        service.change(joined, now - 200 * DAY, now)
        with service.connect() as database:
            rows = database.execute("select seq, action from log where team_id = 1 order by seq")
            at, ages = now - 201 * DAY, [age for *_, age, _ in KEYS]
            for seq, action in rows.fetchall():
                if action == "key.create":
                    at = now - ages.pop(0)
                elif action == "key.rotate":
                    at = now - 2 * HOUR
                elif action == "key.edit":
                    at = now - HOUR
                change = "update log set at_s = ?, address = '192.0.2.7' where seq = ?"
                database.execute(change, [at, seq])
            database.commit()

    def replaced(self, text):
        """Returns the text of a page, with fixed values for those that differ from run to run."""
        ids = dict.fromkeys(re.findall("/k/([0-9A-Za-z]{11})", text))
        for index, key_id in enumerate(ids):
            text = text.replace(key_id, "3QmT8xVbK2" + "abcdefghijkl"[index])
        text = re.sub(
            r"kt_(live|test)_[0-9A-Za-z]{20,}",
            lambda found: f"kt_{found[1]}_" + ("7Yb2Qx9LmK4tVd8R" * 4)[: len(found[0]) - 8],
            text,
        )
        text = re.sub(r"http://localhost:\d+", "https://api.example.com", text)

        def moved(found):
            at = datetime.fromisoformat(found[1].replace("Z", "+00:00")).timestamp()
            # Rounded down to an hour, which the seconds until now do not change. The beginnings of
            # bars are hours, and are rounded up.
            hours = (at - self.now - (60 if at % HOUR else -HOUR)) // HOUR
            new = NOW + timedelta(hours=hours)
            date = f"{new:%Y-%m-%d}" if re.fullmatch(r"[\d-]{10}", found[3]) else found[3]
            return f'datetime="{new:%Y-%m-%dT%H:%M:%SZ}"{found[2]}>{date}<'

        text = re.sub(r'datetime="([^"]+)"([^>]*)>([^<]*)<', moved, text)
        # The windows of quotas end at midnight, whatever the hour is.
        free = r'(Resets at"><time datetime=")[^"]+'
        return re.sub(free, f"\\g<1>{NOW + timedelta(hours=14):%Y-%m-%dT%H:%M:%SZ}", text)

    def replace(self, route):
        """Answers a request of the browser."""
        kind = route.request.resource_type
        if kind == "document":
            # Playwright sends no fields on the origin, without which a form is refused.
            headers = {**route.request.headers, "sec-fetch-site": "same-origin"}
            response = route.fetch(headers=headers)
            route.fulfill(response=response, body=self.replaced(response.text()))
        elif kind in ("fetch", "xhr"):
            # The numbers are not refreshed.
            route.abort()
        else:
            route.fallback()

    def picture(self, screen, scheme, width):
        """Returns the picture of a screen."""
        service, page = self.service, self.pages[screen]
        self.set_times()
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844 if width < 500 else 800})
        if screen == "secret":
            # A second key of a name needs a confirmation.
            rename = 'update "key" set name = cast(key_id as text) where team_id = 2'
            service.change(rename)
            page.goto(service.url + "/keys/new")
            page.fill("#name", "billing service")
            page.fill("#env", "live")
            with page.expect_navigation():
                page.click("text=Make key")
        else:
            paths = {"keys": "", "key": "/k/ID", "rotate": "/k/ID/rotate", "revoke": "/k/ID/revoke"}
            path = paths.get(screen, f"/{screen}").replace("ID", self.id)
            page.goto(service.url + "/keys" + path)
        data = page.screenshot(full_page=True, animations="disabled")
        return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.fixture(scope="module")
def world(chromium, tmp_path_factory):
    # Windows that do not end before the pictures are taken.
    plans = ["default=20000/day, 500000/month; team: 200000/day"]
    plans += ["pro=90000/day, 2000000/month; team: 200000/day"]
    service = Service(tmp_path_factory.mktemp("pictures"), plans=plans)
    options = {"timezone_id": "UTC", "locale": "en-GB", "reduced_motion": "reduce"}
    contexts = [chromium.new_context(**options) for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.set_default_timeout(10_000)
    yield World(service, *pages)
    for context in contexts:
        context.close()
    service.stop()


def difference(actual, expected):
    """Returns the pixels that differ, white on black."""
    blurred = [image.filter(ImageFilter.BoxBlur(1)) for image in (actual, expected)]
    red, green, blue = ImageChops.difference(*blurred).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return most.point(lambda value: 255 * (value > COLOR))


@pytest.mark.parametrize(
    ("screen", "scheme", "width"), CHOSEN, ids=["-".join(map(str, one)) for one in CHOSEN]
)
def test_screen_looks_as_its_picture(world, screen, scheme, width):
    actual = world.picture(screen, scheme, width)
    file = FOLDER / f"{screen}-{scheme}-{width}.png"
    if WRITES:
        FOLDER.mkdir(parents=True, exist_ok=True)
        # No color changes by more than 10 of 255, and a file is a third as large.
        few = actual.quantize(256, Image.Quantize.MAXCOVERAGE, 1, dither=Image.Dither.NONE)
        few.save(file, optimize=True)
    expected = Image.open(file).convert("RGB")
    is_same_size = actual.size == expected.size
    found = difference(actual, expected) if is_same_size else None
    count = found.histogram()[255] if found else None
    if count is None or count > PIXELS:
        if OUTPUT:
            actual.save(f"{OUTPUT}/{file.name}")
            if found:
                found.save(f"{OUTPUT}/{file.stem}-difference.png")
        if is_same_size:
            what = f"{count} pixels differ, around {found.getbbox()}"
        else:
            what = f"it is {actual.size} pixels large, and not {expected.size}"
        raise AssertionError(
            f"{file.name}: {what}. Look at {OUTPUT}. If the change is right, record the pictures "
            "again: KEYTALLY_WRITE_PICTURES=1 cargo xtask test page"
        )


def test_every_stored_picture_is_compared():
    stored = {file.name for file in FOLDER.glob("*.png")}
    assert stored == {"{}-{}-{}.png".format(*one) for one in ALL}
    assert sum(file.stat().st_size for file in FOLDER.glob("*.png")) <= 1_500_000
    assert len({screen for screen, *_ in SOME}) == len(SCREENS)
    assert {(scheme, width) for _, scheme, width in SOME} == {
        (scheme, width) for scheme in SCHEMES for width in WIDTHS
    }

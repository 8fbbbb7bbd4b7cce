"""Measures how fast the list of a team with 10,000 keys is painted in Chromium.

`KEYTALLY_MEASURE_PAGE=1 cargo xtask test page` runs it.
"""

import statistics

from steps import add_many_keys, sign_in

ROUNDS = 30
PAINT = '() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null'


def first_paint(page):
    """Returns the time of the first paint in milliseconds, as soon as the browser has it."""
    for _ in range(500):
        # The policy of the page forbids `wait_for_function`, which evaluates a text.
        if (time_ms := page.evaluate(PAINT)) is not None:
            return time_ms
        page.wait_for_timeout(10)
    raise AssertionError("nothing was painted")


def test_first_paint(service, open_page, capsys):
    page = open_page()
    sign_in(page, service)
    add_many_keys(service, 10_000)
    first, again = [], []
    for _ in range(ROUNDS):
        # A context of its own has nothing in its cache.
        fresh = open_page(storage_state=page.context.storage_state())
        fresh.goto(service.url + "/keys")
        first.append(first_paint(fresh))
        fresh.goto(service.url + "/keys?state=active")
        again.append(first_paint(fresh))
        fresh.context.close()
    with capsys.disabled():
        for what, times in (("nothing cached", first), ("assets cached", again)):
            times.sort()
            print(
                f"first paint of a page of 10,000 keys, {what}: median "
                f"{statistics.median(times):.0f} ms, p95 {times[len(times) * 95 // 100]:.0f} ms"
            )

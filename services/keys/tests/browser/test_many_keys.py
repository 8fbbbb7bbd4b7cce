"""A team with 10,000 keys: nothing of the page grows with their number."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect
from steps import add_many_keys, sign_in

COUNT = 10_000


@pytest.fixture
def page(service, open_page, has_script):
    page = open_page(java_script_enabled=has_script)
    sign_in(page, service)
    add_many_keys(service, COUNT)
    page.goto(service.url + "/keys?state=all")
    return page


def names(page):
    return page.locator("tbody th bdi").all_text_contents()


def find(page, text):
    """Searches for a name. With script, the list changes in place."""
    page.fill("#search", text)
    page.press("#search", "Enter")
    page.wait_for_url(re.compile(re.escape(f"search={quote(text)}")))


def test_list_of_10000_keys_is_paged_searched_and_filtered(service, page):
    assert page.inner_text("#count") == "10,000 keys"
    assert names(page)[0] == f"Service {COUNT:05} of 0"
    assert page.locator("tbody tr").count() == 50
    # The page is small: one row has about 25 elements.
    assert page.locator("*").count() < 2_000
    for number in range(1, 4):
        page.click("text=Next page")
        first = f"Service {COUNT - 50 * number:05}"
        expect(page.locator("tbody th bdi").first).to_contain_text(first)
        assert page.locator("tbody tr").count() == 50
    find(page, "service 00777")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert names(page) == ["Service 00777 of 77"]
    find(page, "of 42")
    expect(page.locator("tbody tr")).to_have_count(50)
    assert all(name.endswith(" of 42") for name in names(page))
    page.click("text=Next page")
    expect(page.locator("tbody th bdi").first).to_contain_text("Service 04942 of 42")
    find(page, "no such name")
    expect(page.locator("#rows")).to_contain_text("No key matches")
    page.goto(service.url + "/keys?env=live&state=active&plan=pro&search=service")
    numbers = [int(name.split()[1]) for name in names(page)]
    expected = [n for n in range(COUNT, 0, -1) if n % 3 == 0 and n % 5 == 0 and n % 7 != 0]
    assert numbers == expected[:50]
    page.click("text=Next page")
    expect(page.locator("tbody th bdi").first).to_contain_text(f"{expected[50]:05}")
    assert [int(name.split()[1]) for name in names(page)] == expected[50:100]


def test_first_load_of_10000_keys_is_small(service, open_page):
    page = open_page()
    sign_in(page, service)
    add_many_keys(service, COUNT)
    fresh = open_page(storage_state=page.context.storage_state())
    session = fresh.context.new_cdp_session(fresh)
    session.send("Network.enable")
    sizes, requests = [], []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    fresh.on("request", lambda request: requests.append(request.resource_type))
    fresh.goto(service.url + "/keys", wait_until="networkidle")
    assert sum(sizes) <= 32 * 1024, sizes
    # The page, a style, two scripts and the icon.
    assert sorted(requests) in (
        ["document", "image", "script", "script", "stylesheet"],
        ["document", "other", "script", "script", "stylesheet"],
        ["document", "script", "script", "stylesheet"],
    )
    # Nothing but the one style delays the first paint.
    blocking = fresh.evaluate(
        """() => performance.getEntriesByType("resource")
            .filter((entry) => entry.renderBlockingStatus === "blocking")
            .map((entry) => new URL(entry.name).pathname.split("-").pop())"""
    )
    assert blocking == ["page.css"]

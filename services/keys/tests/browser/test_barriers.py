"""No screen has a barrier: colors, sizes, zoom, motion, order of the keyboard."""

import os

import pytest
from screens import visit_screens
from steps import assert_no_barrier, assert_not_wide, make_key, sign_in

from conftest import Service

IS_LONG = "KEYTALLY_LONG" in os.environ

# Returns the elements that the window or their own box cuts. A field scrolls by itself.
CUT = """() => [...document.querySelectorAll("header *, main *")].filter((element) => {
    const box = element.getBoundingClientRect();
    if (!box.width || element.closest(".hidden, thead, option, svg *")) return false;
    const scrolls = element.matches("input, select, textarea");
    const hides = getComputedStyle(element).overflowX !== "visible";
    return box.right > innerWidth + 1 || box.left < -1
        || (hides && !scrolls && element.scrollWidth > element.clientWidth + 1);
}).map((element) => element.outerHTML.slice(0, 120))"""

# Returns the elements that the key Tab must reach, in their order.
STOPS = """() => {
    const chosen = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    return [...document.querySelectorAll(chosen)].filter((element) => {
        if (element.hidden || element.disabled || element.type === "hidden") return false;
        if (!element.checkVisibility({visibilityProperty: true})) return false;
        if (element.type !== "radio") return true;
        const group = [...document.getElementsByName(element.name)];
        return (group.find((one) => one.checked) ?? group[0]) === element;
    });
}"""

# Returns the number of the focused element in that order, or what is wrong with it.
FOCUSED = """() => {
    const element = document.activeElement;
    if (element === document.body) return "the page";
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const text = element.outerHTML.slice(0, 120);
    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2)
        return `no outline: ${text}`;
    if (box.bottom < 0 || box.top > innerHeight || box.right < 0 || box.left > innerWidth)
        return `not in the window: ${text}`;
    return String(window.stops.indexOf(element));
}"""


def assert_order(page, name):
    """Checks that Tab reaches each element in the order of the page, visibly, and leaves it."""
    count = page.evaluate(f"window.stops = ({STOPS})(); window.stops.length")
    page.evaluate("scrollTo(0, 0)")
    seen = []
    # The window is a stop too, and a field for a date has several.
    for _ in range(count + 12):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUSED)
        if at not in [*seen, "the page"]:
            seen.append(at)
    # A field may have had the focus from the beginning.
    first = seen.index("0")
    seen = seen[first:] + seen[:first]
    assert seen == [str(number) for number in range(count)], name


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_no_screen_has_a_barrier(service, open_page, scheme, width):
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    other = {"light": "dark", "dark": "light"}[scheme]
    seen = set()
    for name in visit_screens(service, page):
        assert_not_wide(page, name)
        assert_no_barrier(page, f"{name}, {scheme}")
        if IS_LONG:
            page.emulate_media(color_scheme=other)
            assert_no_barrier(page, f"{name}, {other}")
            page.emulate_media(color_scheme=scheme)
        seen.add(name)
    assert len(seen) == 39


def test_full_gate_has_no_barrier(tmp_path, open_page):
    service = Service(tmp_path, capacity=1)
    page = open_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, service)
    make_key(page, service, "the only one")
    page.goto(service.url + "/keys/new")
    page.fill("#name", "one more")
    page.click("text=Make key")
    assert "larger gate" in page.inner_text("main")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert_no_barrier(page, f"full, {scheme}")
    service.stop()


def test_screens_fit_when_enlarged_and_show_what_is_focused(service, open_page):
    page = open_page(viewport={"width": 640, "height": 512}, device_scale_factor=2)
    for name in visit_screens(service, page):
        # 200 % and 400 % of a window of 1280 pixels, which WCAG 1.4.4 and 1.4.10 name.
        for width in (640, 320):
            page.set_viewport_size({"width": width, "height": 512})
            assert_not_wide(page, name)
            assert page.evaluate(CUT) == [], f"{name}, {width} pixels wide"
        assert_order(page, name)


def test_screens_without_motion_and_with_forced_colors(service, open_page):
    page = open_page(reduced_motion="reduce", forced_colors="active")
    moving = """() => [...document.querySelectorAll("*")].filter((element) => {
        const style = getComputedStyle(element);
        return style.transitionDuration !== "0s" || style.animationName !== "none";
    }).length + document.getAnimations().length"""
    bare = """() => [...document.querySelectorAll("button:not([hidden]), .button, .state, .chip")]
        .filter((element) => getComputedStyle(element).borderTopStyle === "none")
        .map((element) => element.outerHTML)"""
    for name in visit_screens(service, page):
        assert page.evaluate(moving) == 0, name
        assert page.evaluate(bare) == [], name
        if name == "key":
            colors = page.evaluate(
                """() => [...document.querySelectorAll("svg.large .admitted, svg.large .denied")]
                .map((path) => getComputedStyle(path).stroke)"""
            )
            assert len(set(colors)) == 2

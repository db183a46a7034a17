"""Looks at the dashboard in headless Chromium, as people and keyboards do.

    dashboard.py URL TOKEN_FILE SCREENSHOTS

Says on standard output what it wants to happen next ("join", "fail", ...), one word a line, and goes
on when a line comes back: whoever runs it owns DNS and the backends. Ends with "fine".
"""

import contextlib
import pathlib
import re
import sys
import time

from playwright.sync_api import expect, sync_playwright

URL, TOKEN_FILE, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)
SIZES = {"desktop": {"width": 1440, "height": 1000}, "phone": {"width": 390, "height": 844}}


def please(what):
    print(what, flush=True)
    if not sys.stdin.readline():
        sys.exit(f"nobody does {what!r}")


class Watched:
    """A page, and everything that it should not do."""

    def __init__(self, browser, size="desktop", scheme="light"):
        self.context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
        self.page = self.context.new_page()
        self.wrong = []
        # What a step takes away or gets wrong on purpose is noticed by the browser too.
        self.forgiven = None
        self.page.on("console", self.said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self.asked)
        self.page.goto(URL)

    @contextlib.contextmanager
    def forgiving(self, words):
        """While this lasts, resources may fail to load for this reason, and must."""
        self.forgiven, self.missed = words, False
        yield
        # What the browser says of it comes a little later than what the page shows.
        deadline = time.monotonic() + 5
        while not self.missed and time.monotonic() < deadline:
            self.page.wait_for_timeout(20)
        self.forgiven = None
        assert self.missed, f"nothing has failed with {words!r}"

    def said(self, message):
        failed = "Failed to load resource" in message.text
        if failed and self.forgiven is not None and self.forgiven in message.text:
            self.missed = True
        elif message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def asked(self, request):
        if not request.url.startswith(URL) and not request.url.startswith("data:"):
            self.wrong.append(f"request to elsewhere: {request.url}")

    def each_size_and_theme(self):
        """From one state: what is looked at is the same page in all of them."""
        for size, viewport in SIZES.items():
            for scheme in ("light", "dark"):
                self.page.set_viewport_size(viewport)
                self.page.emulate_media(color_scheme=scheme)
                yield f"{size}-{scheme}"
        self.page.set_viewport_size(SIZES["desktop"])
        self.page.emulate_media(color_scheme="light")

    def overflows(self):
        """Elements that stick out to the right."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('body *')]
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('[hidden]'))
                .filter((e) => getComputedStyle(e).clipPath === 'none' && !e.closest('caption, thead'))
                .map((e) => `${e.tagName}.${e.getAttribute('class')} ${e.textContent.slice(0, 40)}`)
                .concat(document.documentElement.scrollWidth > innerWidth ? ['the page itself'] : [])"""
        )


def all_is_there(page):
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#state")).to_contain_text("ready")
    expect(page.locator("#version")).to_have_text(re.compile(r"^\d+\.\d+\.\d+"))
    expect(page.locator("#uptime")).to_have_text(re.compile(r"\d+ (s|min)"))
    expect(page.locator("#certificate")).to_have_text(re.compile(r"^\d+ days left$"))
    expect(page.locator("#reload")).to_have_text(re.compile("none yet|applied|unchanged|refused"))
    for tile in ("requests", "p50", "p99", "errors", "in-flight", "connections", "healthy"):
        place = page.locator(f"[data-tile={tile}]")
        expect(place.locator(".figure")).to_have_text(re.compile(r"\d"))
        expect(place.locator(".spark .stroke")).to_have_attribute("d", re.compile(r"^M.*L"))
    expect(page.locator("[data-tile=healthy] .figure")).to_have_text("3 of 3")
    service = page.locator("[data-service=web]")
    expect(service.locator(".dns-name code")).to_have_text("_http._tcp.web.svc.test.")
    expect(service.locator(".resolver dd")).to_have_text(re.compile(r"127\.0\.0\.1:\d+"))
    expect(service.locator(".age dd")).to_have_text(re.compile(r"^\d+ s$"))
    expect(service.locator(".ttl dd")).to_have_text(re.compile(r"^\d+ s of 3 s"))
    expect(service.locator(".results")).to_contain_text(re.compile(r"SRV ok\s*\d+"))
    expect(service.locator(".badges")).to_contain_text("fresh")
    expect(service.locator(".lane")).to_have_count(2)
    expect(service.locator(".lane").nth(0)).to_contain_text("Tier 0")
    expect(service.locator(".lane").nth(0)).to_contain_text("serving")
    expect(service.locator(".lane").nth(1)).to_contain_text("standby")
    expect(service.locator("[data-bar]")).to_have_count(3)
    first = service.locator("[data-bar]").first
    expect(first).to_contain_text(re.compile(r"75\.0 %\s*configured"))
    expect(first).to_contain_text(re.compile(r"7\d\.\d %\s*measured"))
    expect(service.locator("tbody tr")).to_have_count(3)
    for heading in ("Backend", "State", "Reason", "Last check", "Drain"):
        expect(service.locator("th[scope=col]", has_text=heading).first).to_be_attached()
    expect(service.locator("tbody tr").first.locator(".state")).to_have_text("up")
    expect(service.locator("tbody tr").first.locator("[data-label='Last check']")).to_contain_text("passed")
    expect(service.locator("tbody tr button")).to_have_count(3)
    expect(page.locator("#timeline li b", has_text="joined").first).to_be_visible()
    expect(page.get_by_role("heading", name="Why did this request go there?")).to_be_visible()
    assert page.locator("#timeline").get_attribute("aria-live") == "polite"


def all_moves(page):
    """All of it at once, so that it is waited for together. More clients come, for what is counted."""
    tiles = [f"[data-tile={tile}]" for tile in ("requests", "p50", "p99", "in-flight", "connections")]
    texts = [f"{tile} .figure" for tile in tiles]
    texts += ["#uptime", *(f"[data-service=web] {part}" for part in (".rate b", ".results", ".age dd", ".ttl dd"))]
    lines = [f"{tile} .stroke" for tile in tiles]
    wanted = [(text, None) for text in texts] + [(line, "d") for line in lines]
    wanted.append(("[data-service=web] .countdown i", "style"))
    now = """(wanted) => wanted.map(([selector, attribute]) => {
        const node = document.querySelector(selector);
        return attribute ? node.getAttribute(attribute) : node.innerText;
    })"""
    first = page.evaluate(now, wanted)
    please("more clients")
    frozen = wanted
    deadline = time.monotonic() + PATIENCE / 1000
    while frozen and time.monotonic() < deadline:
        page.wait_for_timeout(100)
        seen = page.evaluate(now, wanted)
        frozen = [one for one, then, again in zip(wanted, first, seen) if one in frozen and then == again]
    assert not frozen, f"frozen: {frozen}"


def a_join_shows(page):
    please("join")
    expect(row(page, "b4")).to_be_visible()
    expect(row(page, "b4").locator(".state")).to_have_text("up")
    expect(event(page, "joined", "b4")).to_be_visible()
    expect(page.locator("[data-tile=healthy] .figure")).to_have_text("4 of 4")
    # 3 of 3 + 1 + 2; it gets its share, too.
    expect(bar(page, "b4")).to_contain_text(re.compile(r"33\.3 %\s*configured"))
    expect(bar(page, "b4")).to_contain_text(re.compile(r"[1-9]\d?\.\d %\s*measured"))


def a_weight_shows(page):
    please("weight")
    expect(event(page, "weight changed", "b4")).to_be_visible()
    expect(bar(page, "b4")).to_contain_text(re.compile(r"50\.0 %\s*configured"))


def a_failure_shows(page):
    please("fail")
    expect(row(page, "b2").locator(".state")).to_have_text("down")
    expect(row(page, "b2").locator("[data-label=Reason]")).to_contain_text("check: cannot connect")
    expect(row(page, "b2").locator("[data-label='Last check']")).to_contain_text("cannot connect")
    expect(event(page, "down", "").first).to_be_visible()
    expect(page.locator("[data-service=web] .figures .healthy")).to_contain_text("3 of 4")


def an_ejection_shows(page):
    please("eject")
    expect(row(page, "b5").locator(".state")).to_have_text("ejected")
    expect(row(page, "b5").locator("[data-label=Reason]")).to_contain_text("failures in a row")
    expect(row(page, "b5").locator("[data-label=Reason]")).to_contain_text(re.compile(r"for another \d+ s"))
    expect(event(page, "ejected", "").first).to_be_visible()


def the_rest_shows(page):
    please("recover")
    expect(row(page, "b2").locator(".state")).to_have_text("up")
    expect(event(page, "recovered", "").first).to_be_visible()
    please("leave")
    expect(row(page, "b4")).to_have_count(0)
    expect(event(page, "left", "b4")).to_be_visible()
    page.locator("#warnings-only").check()
    expect(event(page, "left", "b4")).to_be_hidden()
    expect(event(page, "down", "").first).to_be_visible()
    page.locator("#warnings-only").uncheck()
    please("fail over")
    expect(page.locator(".lane").nth(1)).to_contain_text("serving")
    expect(event(page, "failed over", "").first).to_be_visible()


def failures_are_counted(page):
    """Nobody is left: clients get 503."""
    expect(page.locator("[data-tile=errors] .figure")).to_have_text("0")
    please("fail all")
    expect(page.locator("[data-tile=errors] .figure")).to_have_text(re.compile(r"[1-9]"))
    expect(page.locator("[data-tile=errors]")).to_have_attribute("data-tone", "bad")
    expect(page.locator("[data-service=web] .figures .errors b")).to_have_text(re.compile(r"[1-9]"))
    expect(page.locator(".lane").nth(0)).to_contain_text("nobody can serve; tried all the same")
    expect(page.locator(".lane").nth(1)).to_contain_text("nobody can serve")


def a_reload_shows(page):
    expect(page.locator("#reload")).to_have_text("none yet")
    please("swap the certificate")
    expect(event(page, "certificate swapped", "").first).to_be_visible()
    please("reload")
    expect(page.locator("#reload")).to_have_text(re.compile(r"^applied \d+ s ago$"))
    expect(event(page, "reloaded", "").first).to_be_visible()


def a_removal_that_is_held_back_shows(page):
    badges = page.locator("[data-service=web] .badges")
    expect(badges).to_have_text("fresh")
    please("vanish")
    expect(badges).to_contain_text("removal held back")
    expect(page.locator("[data-service=web] .dns .detail")).to_contain_text("Held back: ")
    expect(event(page, "held back", "").first).to_be_visible()
    please("appear")
    expect(badges).to_have_text("fresh")


def stale_dns_shows(page):
    badges = page.locator("[data-service=web] .badges")
    please("lose DNS")
    expect(badges).to_contain_text(re.compile(r"stale for \d+ s"))
    expect(badges).not_to_contain_text("fresh")
    expect(event(page, "DNS stale", "").first).to_be_visible()


def a_drain_shows(page):
    please("drain")
    expect(page.locator("#state")).to_have_attribute("data-state", "draining")
    expect(page.locator("#state")).to_contain_text("draining")
    expect(page).to_have_title(re.compile("^draining"))
    expect(event(page, "draining", "").first).to_be_visible()


def row(page, backend):
    return page.locator("tbody tr", has_text=f"{backend}.web.svc.test")


def bar(page, backend):
    return page.locator("[data-bar]", has=page.locator(f".who span:text-is('{backend}')"))


def event(page, word, about):
    return page.locator("#timeline li", has=page.locator(f"b:text-is('{word}')"), has_text=about)


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")


def tab_to(page, name):
    # Where it is already there is nothing to press: a dialog that closes gives it back.
    for _ in range(80):
        if re.search(name, focused(page)):
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style != "none", f"the focus on {name} cannot be seen"
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not get to {name}")


def by_keyboard_alone(watched):
    page = watched.page
    page.reload()
    expect(row(page, "b1")).to_be_visible()
    page.keyboard.press("Tab")
    assert "Skip to" in focused(page), focused(page)
    page.keyboard.press("Enter")
    tab_to(page, r"^Drain b1\.web\.svc\.test")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_visible()
    assert page.evaluate("document.querySelector('#confirm').contains(document.activeElement)")
    # Escape is a no.
    page.keyboard.press("Escape")
    expect(page.locator("#confirm")).to_be_hidden()
    assert "Drain b1" in focused(page), "the focus is back"
    page.keyboard.press("Enter")
    tab_to(page, "^Drain it$")
    # A change needs the token; a wrong one is asked for again, the right one once.
    with watched.forgiving("status of 401"):
        page.keyboard.press("Enter")
        expect(page.locator("#ask-token")).to_be_visible()
        expect(page.locator("#ask-token")).to_contain_text("token")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token")).to_have_value("")
        expect(page.locator("#ask-token")).to_be_visible()
    page.keyboard.type(pathlib.Path(TOKEN_FILE).read_text().strip())
    page.keyboard.press("Enter")
    expect(page.locator("#ask-token")).to_be_hidden()
    expect(row(page, "b1").locator(".state")).to_have_text("drained")
    expect(row(page, "b1").locator("[data-label=Reason]")).to_contain_text("drained by hand")
    expect(event(page, "drained", "").first).to_be_visible()
    tab_to(page, r"^Undrain b1\.web")
    page.keyboard.press("Enter")
    tab_to(page, "^Undrain it$")
    page.keyboard.press("Enter")
    expect(row(page, "b1").locator(".state")).to_have_text("up")
    expect(page.locator("#ask-token")).to_be_hidden()


def why_a_request_went_there(watched):
    page = watched.page
    request = page.locator("#requests .request").first
    expect(request).to_be_visible()
    request.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#requests .request[open] .why li").first).to_be_visible()
    page.locator("#explain-url").fill("https://localhost/")
    page.keyboard.press("Enter")
    expect(page.locator("#explanation .why")).to_contain_text("Tier 0")
    expect(page.locator("#explanation .candidates")).to_contain_text("ejected")
    page.locator("#explain-url").fill("nonsense")
    with watched.forgiving("status of 400"):
        page.keyboard.press("Enter")
        expect(page.locator("#explanation")).to_contain_text("No explanation:")


def says_when_it_is_old(watched):
    page = watched.page
    with watched.forgiving("net::ERR_INTERNET_DISCONNECTED"):
        watched.context.set_offline(True)
        expect(page.locator("#banner")).to_contain_text(re.compile(r"What you see is \d+ s old"))
        expect(page.locator("#live")).to_have_text("not live")
        watched.context.set_offline(False)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator("#banner")).to_be_hidden()
    please("weight back")
    expect(event(page, "weight changed", "b1")).to_be_visible()


def theme_and_motion(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    for expected in ("Theme: light", "Theme: dark"):
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_text(expected)
    assert page.evaluate(paper) != light
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: dark")
    page.emulate_media(reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none').length"
    assert page.evaluate(moving) == 0
    page.locator("#theme").click()


def looks_right(watched):
    page = watched.page
    for name in watched.each_size_and_theme():
        expect(row(page, "b5").locator(".state")).to_have_text("ejected")
        # What has just arrived is not marked any more.
        page.evaluate(
            """() => Promise.allSettled(document.getAnimations()
                .filter((a) => a.effect.getTiming().iterations === 1).map((a) => a.finished)).then(() => null)"""
        )
        part = {"full_page": True, "clip": {"x": 0, "y": 0, "width": 390, "height": 1800}} if "phone" in name else {}
        page.screenshot(path=FOLDER / f"dashboard-{name}.png", **part)
        assert not watched.overflows(), (name, watched.overflows())


def main(browser):
    watched = Watched(browser)
    page = watched.page
    for _ in watched.each_size_and_theme():
        all_is_there(page)
    all_moves(page)
    a_join_shows(page)
    a_weight_shows(page)
    a_failure_shows(page)
    an_ejection_shows(page)
    looks_right(watched)
    why_a_request_went_there(watched)
    by_keyboard_alone(watched)
    a_removal_that_is_held_back_shows(page)
    the_rest_shows(page)
    says_when_it_is_old(watched)
    theme_and_motion(page)
    failures_are_counted(page)
    a_reload_shows(page)
    stale_dns_shows(page)
    a_drain_shows(page)
    # A page that is opened later shows what was before it.
    late = Watched(browser, "phone")
    expect(event(late.page, "left", "b4")).to_be_visible()
    assert not late.overflows(), late.overflows()
    wrong = [what for each in (watched, late) for what in each.wrong]
    assert not wrong, "\n".join(wrong)
    print("fine", flush=True)


with sync_playwright() as playwright:
    # No sandbox: it runs as root in containers, and shows nothing but our own page.
    chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    try:
        main(chromium)
    finally:
        chromium.close()

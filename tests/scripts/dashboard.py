"""Looks at the dashboard in headless Chromium, as people and keyboards do.

    dashboard.py URL TOKEN_FILE SCREENSHOTS

Says on standard output what it wants to happen next ("join", "fail", ...), one word a line, and goes
on when a line comes back: whoever runs it owns DNS and the backends. Ends with "fine".
"""

import pathlib
import re
import sys

from playwright.sync_api import expect, sync_playwright

URL, TOKEN_FILE, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)
NAMES = {1440: "desktop", 390: "phone"}


def please(what):
    print(what, flush=True)
    if not sys.stdin.readline():
        sys.exit(f"nobody does {what!r}")


class Watched:
    """A page, and everything that it should not do."""

    def __init__(self, browser, width, scheme, **options):
        height = {1440: 1000, 390: 844}[width]
        self.name = f"{NAMES[width]}-{scheme}"
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        self.page = self.context.new_page()
        self.wrong = []
        # What a test takes away on purpose is missed by the browser too.
        self.forgiving = False
        self.page.on("console", self.said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self.asked)
        self.page.goto(URL)

    def said(self, message):
        expected = self.forgiving and "Failed to load resource" in message.text
        # A question without a token is refused: that is how the page learns that it needs one. And
        # nonsense is.
        expected |= any(f"status of {code}" in message.text for code in (400, 401))
        if message.type in ("error", "warning") and not expected:
            self.wrong.append(f"console: {message.text}")

    def asked(self, request):
        if not request.url.startswith(URL) and not request.url.startswith("data:"):
            self.wrong.append(f"request to elsewhere: {request.url}")

    def overflows(self):
        """Elements that stick out to the right."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('body *')]
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('[hidden]'))
                .filter((e) => getComputedStyle(e).clipPath === 'none' && !e.closest('caption, thead'))
                .map((e) => `${e.tagName}.${e.getAttribute('class')} ${e.textContent.slice(0, 40)}`)
                .concat(document.documentElement.scrollWidth > innerWidth ? ['the page itself'] : [])"""
        )


def changes(page, selector):
    """Waits until what it says is something else."""
    before = page.locator(selector).first.inner_text()
    expect(page.locator(selector).first).not_to_have_text(before)


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
    expect(service.locator(".ttl dd")).to_have_text(re.compile(r"^\d+ s of 2 s"))
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
    changes(page, "[data-tile=requests] .figure")
    before = page.locator("[data-tile=requests] .stroke").get_attribute("d")
    expect(page.locator("[data-tile=requests] .stroke")).not_to_have_attribute("d", before)
    changes(page, "#uptime")
    changes(page, "[data-service=web] .rate b")
    changes(page, "[data-service=web] .results")


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


def row(page, backend):
    return page.locator("tbody tr", has_text=f"{backend}.web.svc.test")


def bar(page, backend):
    return page.locator("[data-bar]", has=page.locator(f".who span:text-is('{backend}')"))


def event(page, word, about):
    return page.locator("#timeline li", has=page.locator(f"b:text-is('{word}')"), has_text=about)


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")


def tab_to(page, name):
    for _ in range(80):
        page.keyboard.press("Tab")
        if re.search(name, focused(page)):
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style != "none", f"the focus on {name} cannot be seen"
            return
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
    page.keyboard.press("Enter")
    # A change needs the token; a wrong one is asked for again, the right one once.
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


def why_a_request_went_there(page):
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
    page.keyboard.press("Enter")
    expect(page.locator("#explanation")).to_contain_text("No explanation:")


def says_when_it_is_old(watched):
    page = watched.page
    watched.forgiving = True
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


def main(browser):
    pages = [Watched(browser, width, scheme) for width in (1440, 390) for scheme in ("light", "dark")]
    first = pages[0].page
    for watched in pages:
        all_is_there(watched.page)
    all_moves(first)
    a_join_shows(first)
    a_weight_shows(first)
    a_failure_shows(first)
    an_ejection_shows(first)
    for watched in pages:
        expect(row(watched.page, "b5").locator(".state")).to_have_text("ejected")
        # What has just arrived is not marked any more.
        watched.page.evaluate(
            """() => Promise.allSettled(document.getAnimations()
                .filter((a) => a.effect.getTiming().iterations === 1).map((a) => a.finished)).then(() => null)"""
        )
        part = {"full_page": True, "clip": {"x": 0, "y": 0, "width": 390, "height": 1800}} if "phone" in watched.name else {}
        watched.page.screenshot(path=FOLDER / f"dashboard-{watched.name}.png", **part)
        assert not watched.overflows(), (watched.name, watched.overflows())
    why_a_request_went_there(first)
    by_keyboard_alone(pages[0])
    the_rest_shows(first)
    says_when_it_is_old(pages[1])
    theme_and_motion(first)
    # A page that is opened later shows what was before it.
    late = Watched(browser, 390, "light")
    expect(event(late.page, "left", "b4")).to_be_visible()
    assert not late.overflows(), late.overflows()
    wrong = [f"{watched.name}: {what}" for watched in [*pages, late] for what in watched.wrong]
    assert not wrong, "\n".join(wrong)
    print("fine", flush=True)


with sync_playwright() as playwright:
    # No sandbox: it runs as root in containers, and shows nothing but our own page.
    chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    try:
        main(chromium)
    finally:
        chromium.close()

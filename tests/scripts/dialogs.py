"""What the dashboard's dialogs and forms do, in headless Chromium.

    dialogs.py URL TOKEN_FILE

URL is that of a control listener that wants the token for all that it says. Its service `web` has two
backends, its service `luck` leaves the choice to chance. Ends with "fine".
"""

import pathlib
import re
import sys
import urllib.parse

from playwright.sync_api import expect, sync_playwright

URL, TOKEN = sys.argv[1], pathlib.Path(sys.argv[2]).read_text().strip()
expect.set_options(timeout=10_000)


def row(page, at):
    return page.locator("[data-service=web] tbody tr").nth(at)


def give(page, token):
    page.locator("#token").fill(token)
    page.keyboard.press("Enter")


def a_token_is_asked_for_until_somebody_says_no(page):
    dialog = page.locator("#ask-token")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#banner")).to_contain_text("needs the token")
    # Some looks later it has not come back; a click brings it.
    asked = []
    page.on("response", lambda response: response.url.endswith("/status") and asked.append(response.status))
    while len(asked) < 2:
        page.wait_for_timeout(100)
    assert set(asked) == {401} and not dialog.is_visible(), asked
    page.locator("#give-token").click()
    expect(dialog).to_be_visible()


def a_token_is_of_visible_ascii(page):
    dialog = page.locator("#ask-token")
    for strange in ("Ωmega", "two words", ""):
        give(page, strange)
        expect(dialog).to_be_visible()
        assert page.locator("#token").evaluate("(field) => !field.validity.valid"), strange
    # One that is none is asked for again, and not kept.
    give(page, "wrong")
    expect(page.locator("#token")).to_have_value("")
    expect(dialog).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    give(page, f" {TOKEN} ")
    expect(dialog).to_be_hidden()
    expect(page.locator("#live")).to_have_text("live")
    assert page.evaluate("Object.values(sessionStorage)") == [TOKEN]
    # What no browser can send is as good as none.
    page.evaluate("Object.keys(sessionStorage).forEach((key) => sessionStorage.setItem(key, 'Ωmega'))")
    expect(dialog).to_be_visible()
    give(page, TOKEN)
    expect(dialog).to_be_hidden()


def a_failure_answers_no_other_question(page):
    held = []
    page.route("**/drain", lambda route: held.append(route))
    dialog = page.locator("#confirm")
    row(page, 0).get_by_role("button").click()
    page.get_by_role("button", name="Drain it").click()
    expect(dialog).to_be_hidden()
    while not held:
        page.wait_for_timeout(20)
    # The other one is asked about when the first one fails.
    row(page, 1).get_by_role("button").click()
    expect(dialog).to_be_visible()
    question = page.locator("#confirm-title").inner_text()
    held.pop().fulfill(status=404, json={"error": {"code": "not_found", "message": "no backend is called that"}})
    failure = page.locator("#failures p")
    expect(failure).to_contain_text(re.compile("^Not done: Drain 127.0.0.1.*no backend is called that"))
    assert dialog.is_visible() and page.locator("#confirm-title").inner_text() == question
    page.keyboard.press("Escape")
    failure.get_by_role("button").click()
    expect(failure).to_have_count(0)
    page.unroute("**/drain")
    assert not held, "the other one was drained"
    expect(row(page, 1).locator(".state")).to_have_text("up")


def a_request_is_asked_about(page):
    """All of the form by keyboard, all of the answer."""
    page.locator("#explain-url").focus()
    for word in ("http://chance.test/", "POST", "192.0.2.7", "front", "X-A: 1\nCookie: evenkeel=none"):
        page.keyboard.type(word)
        page.keyboard.press("Tab")
    with page.expect_request("**/explain?*") as asked:
        page.keyboard.press("Enter")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(asked.value.url).query)
    assert query == {
        "url": ["http://chance.test/"], "method": ["POST"], "client": ["192.0.2.7"], "listener": ["front"],
        "header": ["X-A: 1", "Cookie: evenkeel=none"],
    }, query
    says(page, r"Listener front: it was named", r"Service chance \(random\), snapshot 1, \d+ s old", "Tier 0: the first one",
         r"Tier 0: 2 of 2 can be picked, takes 100\.0 %", r"Tier 10: 1 of 1 can be picked, takes 0\.0 %",
         "Next on worker 0: by chance")
    shown(page, r"chance/127\.0\.0\.1:9 tier 0 · weight 30 · share 75\.0 % · chance 75\.0 % · 0 in flight · up: it can")
    shown(page, r"chance/127\.0\.0\.1:11 tier 10 · weight 1 · share 100\.0 % · 0 in flight")
    page.locator("#explain-listener").fill("")
    page.locator("#explain-headers").fill("Cookie: at=strange")
    page.locator("#explain-url").fill("http://web.test/")
    page.keyboard.press("Enter")
    says(page, r"Cookie at: it stands for nobody who is listed", r"Next on worker 0: web/\S+ \(tier 0: the first one\)")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390, f"it is {wide} wide"


def says(page, *lines):
    for line in lines:
        expect(page.locator("#explanation .why li").filter(has_text=re.compile(f"^{line}"))).to_have_count(1)


def shown(page, line):
    expect(page.locator("#explanation .candidates li").filter(has_text=re.compile(f"^{line}"))).to_have_count(1)


def main(browser):
    page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(URL)
    a_token_is_asked_for_until_somebody_says_no(page)
    a_token_is_of_visible_ascii(page)
    a_failure_answers_no_other_question(page)
    a_request_is_asked_about(page)
    assert not errors, errors
    print("fine", flush=True)


with sync_playwright() as playwright:
    # No sandbox: it runs as root in containers, and shows nothing but our own page.
    chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    try:
        main(chromium)
    finally:
        chromium.close()

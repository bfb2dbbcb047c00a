"""The page for everybody: by keyboard alone, and by the rules of axe."""

import pytest
from browsing import ask, expect
from page_server import PageServer
from test_runs import make_run

pytestmark = pytest.mark.browser


def test_everything_is_done_with_the_keyboard_alone(visit, tmp_path):
    with PageServer(make_run()) as server:
        page = visit(server)

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if page.evaluate("selector => Boolean(document.activeElement?.matches(selector))", selector):
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"Tab never reaches {selector}")

        expect(page.locator(".gallery button")).to_have_count(1)
        tab_to(".gallery button")
        page.keyboard.press("Enter")
        expect(page.locator("#question")).to_have_value("How far?")
        expect(page.locator("#question")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".answer .span")).to_have_count(1)
        page.keyboard.press("Home")
        expect(page.locator(".span").first).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".span").nth(1)).to_be_focused()
        expect(page.locator(".span").nth(1)).to_have_attribute("aria-current", "true")
        page.keyboard.press("Escape")
        tab_to(".strip")
        page.keyboard.press("End")
        expect(page.locator(".strip")).to_have_attribute("aria-valuenow", "3")
        page.locator(".wordmark").focus()
        tab_to(".strongest button")
        page.keyboard.press("Enter")
        tab_to(".evidence .action")
        page.keyboard.press("Enter")
        expect(page.locator(".agreement")).to_contain_text("0.83")
        page.locator(".wordmark").focus()
        tab_to("#open-runs")
        page.keyboard.press("Enter")
        expect(page.locator("#runs")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#runs")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(visit, tmp_path, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    ).Axe()

    def complaints(page) -> str:
        return axe.run(page).generate_report() if axe.run(page).violations_count else ""

    with PageServer(make_run("attention", lost=True)) as server:
        page = visit(server, color_scheme=scheme)
        expect(page.locator(".gallery button")).to_have_count(1)
        assert complaints(page) == ""
        ask(page, tmp_path)
        expect(page.locator(".answer .span")).to_have_count(1)
        page.locator(".strongest button").first.click()
        page.get_by_role("button", name="Hide it and ask again").click()
        expect(page.locator(".compare .verdict")).to_have_text("The answer changes.")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator(".agreement")).to_contain_text("0.83")
        assert complaints(page) == ""
        page.get_by_role("button", name="Runs").click()
        expect(page.locator("#run-list li")).to_have_count(1)
        assert complaints(page) == ""

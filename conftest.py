"""What nbval compares in a chapter, text only, and a last line where the page tests could not run."""

NOT_COMPARED = ("text/html", "image/svg+xml", "application/vnd.plotly.v1+json", "application/javascript", "stderr")
NO_BROWSER = "page tests NOT run: install chromium"


def pytest_collectstart(collector):
    """Figures, widgets, HTML and progress bars are looked at by the page tests, not compared."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += NOT_COMPARED


def pytest_unconfigure(config):
    """Say it after pytest's own closing lines, where it is seen."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if any(NO_BROWSER in str(report.longrepr) for report in skipped):
        print(f"\n{NO_BROWSER}")

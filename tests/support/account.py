"""The account at the end of a run: what each suite did, and that nothing was left out."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

Report = pytest.TestReport | pytest.CollectReport
_OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test is a promise that nobody looked at, so it fails the run."""
    if hasattr(session.config, "workerinput"):
        return  # One of several processes: whoever started them keeps the account.
    reporter = _reporter(session.config)
    if reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """One line for each suite: how many of what, and how long it took."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seconds: defaultdict[str, float] = defaultdict(float)
    for outcome, report in _reports(terminalreporter):
        suite = _suite(report)
        if outcome in _OUTCOMES:
            counts[suite][outcome] += 1
        seconds[suite] += getattr(report, "duration", 0.0)
    terminalreporter.section("suites")
    for suite, count in sorted(counts.items()):
        told = ", ".join(f"{count[name]} {name}" for name in _OUTCOMES if count[name])
        terminalreporter.line(f"{suite:<12} {told} in {seconds[suite]:.1f} s")
    if terminalreporter.stats.get("skipped"):
        terminalreporter.line("FAILED: something was skipped; start what it needs instead")


def _reports(reporter: TerminalReporter) -> Iterator[tuple[str, Report]]:
    for outcome, reports in reporter.stats.items():
        for report in reports:
            if isinstance(report, Report):
                yield outcome, report


def _suite(report: Report) -> str:
    parts = report.nodeid.split("/")
    return parts[1] if len(parts) > 2 else "tests"


def _reporter(config: pytest.Config) -> TerminalReporter:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(reporter, TerminalReporter)
    return reporter

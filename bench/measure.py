"""Numbers: samples taken in turns, their median and spread, and the verdict against a target.

Only ratios taken in one run mean anything on a shared machine, so ours and the baseline alternate (A B A B ...) after
one unmeasured turn of each, and a ratio is formed within each pair: what disturbs one disturbs its neighbour too.
"""

from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """One line of the table. `ours` and `baseline` are samples in `unit`; a row without a baseline is judged itself."""

    id: str
    what: str
    unit: str
    ours: list
    target: float | None  # none: shown for what it says beside the others, not judged
    at_most: bool = False  # the target is a ceiling; otherwise a floor
    baseline: list = field(default_factory=list)
    baseline_name: str = ""
    note: str = ""
    invalid: str = ""  # why the figures do not measure what they say they do

    def ratios(self):
        return [ours / base for ours, base in zip(self.ours, self.baseline) if base]

    def judged(self):
        if self.target == 0:
            return max(self.ours)  # what must never happen may not happen once
        return median(self.ratios() if self.baseline else self.ours)

    def verdict(self):
        if self.invalid:
            return "invalid"
        if self.target is None:
            return "-"
        value = self.judged()
        return "met" if (value <= self.target if self.at_most else value >= self.target) else "short"

    def as_json(self):
        return dict(vars(self), verdict=self.verdict(), judged=self.judged())


def alternate(pairs, ours, baseline):
    """Runs both callables in turns and returns their samples; the first turn of each warms up and is dropped."""
    ours()
    baseline()
    samples = [(ours(), baseline()) for _ in range(pairs)]
    return [a for a, _ in samples], [b for _, b in samples]


def number(value):
    """Three significant digits, thousands kept whole: 0.412, 7.53, 151000 -> 151,000."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def spread(samples):
    if not samples:
        return "-"
    if min(samples) == max(samples):
        return number(samples[0])
    return f"{number(median(samples))} ({number(min(samples))}..{number(max(samples))})"

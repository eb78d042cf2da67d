"""How an interval is printed, everywhere: with as many digits as it knows,
never outside its ends.
"""

from __future__ import annotations

import math

_SAYS_NOTHING = 1e3  # of an upper end over the estimate
_NARROW, _WIDE = 1e-3, 1e5  # magnitudes that are printed without an exponent


def format_interval(
    estimate: float | None,
    low: float | None,
    high: float | None,
    *,
    within: tuple[float, float] = (0.0, math.inf),
) -> str:
    """ "0.31 [0.25, 0.37]"; or "below 0.54" where noise put the debiased estimate
    outside its interval.

    `within` is the range of the quantity: (0, ∞) for sizes, (−1, 1) for cosines. An estimate that
    lies outside [low, high], or is NaN, is not shown: the ends inside `within` say what is known,
    "below 0.54", "above 0.1", "between 0.1 and 0.2" or "unknown". The raw value is in the tables of
    reports. An upper end of more than 1,000 times an estimate says nothing and is printed as such:
    "0.019 [0.006, not known]". None counts as NaN. All numbers get the digits that the width of the
    interval calls for, and an end that would be rounded to 0 one or two more where these show on
    which side of 0 it lies.

        format_interval(*report.overall.cosine, within=(-1, 1))
    """
    values = [math.nan if x is None else float(x) for x in (estimate, low, high)]
    middle, start, end = values
    # a size that has a lower end above 0: a small bias with an upper end says what it can
    if 0 < start <= middle < math.inf and end > _SAYS_NOTHING * middle:
        style = _style([middle, start])
        return f"{_number(middle, style)} [{_number(start, style)}, not known]"
    style = _style(values)
    shown, least, most = _numbers(values, style)
    if start <= middle <= end:
        return f"{shown} [{least}, {most}]"
    from_below, from_above = start > within[0], end < within[1]
    if from_below and from_above:
        return f"between {least} and {most}"
    if from_above:
        return f"below {_number(end, _style([end]))}"
    if from_below:
        return f"above {_number(start, _style([start]))}"
    return "unknown" if math.isnan(middle) or not math.isnan(start + end) else shown


def _style(values: list[float]) -> str:
    """A format with two digits of the largest number,
    and a last digit below a third of the width.
    """
    finite = [x for x in values if math.isfinite(x)]
    largest = max((abs(x) for x in finite), default=0.0)
    if largest == 0:
        return ".0f"
    leading, width = math.floor(math.log10(largest)), max(finite) - min(finite)
    last = leading - 1
    if width > 1e-5 * largest:
        last = min(last, math.floor(math.log10(width / 3)))
    if _NARROW <= largest < _WIDE:
        return f".{max(-last, 0)}f"
    return f".{leading - last + 1}g"


def _numbers(values: list[float], style: str) -> list[str]:
    """Estimate and ends; all with one or two more digits where an end would be printed as 0 that is
    none, so that the side of 0 on which it lies is seen.
    """
    plain = [_number(value, style) for value in values]
    if not style.endswith("f"):
        return plain
    places = int(style[1:-1])
    hidden = {k for k in (1, 2) if _hidden(values[k], plain[k])}
    needed = max((-math.floor(math.log10(abs(values[k]))) for k in hidden), default=places)
    if not places < needed <= places + 2:
        return plain
    finer = f".{needed}f"
    shown = [_number(values[k], finer) if k in hidden else plain[k] for k in range(3)]
    if not float(shown[1]) <= float(shown[0]) <= float(shown[2]):
        shown[0] = _number(values[0], finer)
    return shown


def _hidden(value: float, text: str) -> bool:
    return math.isfinite(value) and value != 0 and float(text) == 0


def _number(value: float, style: str) -> str:
    text = f"{value:{style}}"
    return text.removeprefix("-") if math.isfinite(value) and float(text) == 0 else text

"""Line charts as coordinates for inline SVG: scales, ticks and polylines, without a plotting library."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 40  # margins
SMALLEST_STEP = 1e-290  # between ticks: smaller ones underflow
MOST_POINTS = 400  # of a line; more are thinned out, the first and last are kept
MARKED = 30  # lines of at most as many points have markers
_LARGEST = 1e300  # of values that are drawn: differences of larger ones overflow
COLORS = 8  # of the style sheet; further groups are dashed

Point = tuple[float | int, float | int]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes
    ----------
    name
        Name of the line, for its description.
    group
        Lines of a group share a color and one entry of the legend.
    points
        Pairs of finite numbers, in the order of their drawing.
    """

    name: str
    group: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Line:
    """A line in pixels: ``path`` for SVG, ``marks`` with their text, and its color, an index of the style sheet."""

    name: str
    color: int
    dashed: bool
    path: str
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """A chart in pixels.

    Attributes
    ----------
    title, x_label, y_label, description
        Texts; the description is for readers who do not see the lines.
    x_ticks, y_ticks
        Positions and texts.
    lines
        The lines, in the order of the series.
    """

    title: str
    x_label: str
    y_label: str
    description: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = field(default=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM))


@dataclass(frozen=True)
class Axis:
    """Map from values to pixels, linear or logarithmic."""

    low: float | int
    high: float | int
    start: float | int
    end: float | int
    logarithmic: bool

    def at(self, value: float | int) -> float:
        """Return the pixel of a value, with one decimal."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return values for ticks, of the range only."""
        found = logarithmic_ticks(self.low, self.high) if self.logarithmic else linear_ticks(self.low, self.high)
        return [value for value in found if self.low <= value <= self.high]


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    groups: Sequence[str],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> Chart | None:
    """Return the chart of some lines; None if none has a point.

    Values that are not finite, or above 1e300, are left out. An axis is logarithmic only if all of its values are
    above 0.

    Parameters
    ----------
    title, x_label, y_label
        Texts.
    series
        The lines.
    groups
        All groups of the page, so that a group has the same color in every chart.
    log_x, log_y
        Logarithmic axes.

    >>> found = chart("t", "step", "loss", [Series("a", "a", [(0, 1.0), (10, 0.1)])], ["a"], log_y=True)
    >>> found.lines[0].path, [text for _, text in found.y_ticks]
    ('M58,10L448,230', ['0.1', '0.2', '0.5', '1'])
    >>> chart("t", "step", "loss", [Series("a", "a", [(0, float("nan"))])], ["a"]) is None
    True
    """
    drawn = [Series(each.name, each.group, _thinned([p for p in each.points if _finite(p)])) for each in series]
    drawn = [each for each in drawn if each.points]
    if not drawn:
        return None
    x_axis = _axis([x for each in drawn for x, _ in each.points], LEFT, WIDTH - RIGHT, log_x)
    y_axis = _axis([y for each in drawn for _, y in each.points], HEIGHT - BOTTOM, TOP, log_y)
    lines = [_line(each, groups.index(each.group), x_axis, y_axis) for each in drawn]
    described = "; ".join(
        f"{each.name}: {number(each.points[0][1])} at {number(each.points[0][0])}, "
        f"{number(each.points[-1][1])} at {number(each.points[-1][0])}"
        for each in drawn[:12]
    )
    left_out = f"; and {len(drawn) - 12} more lines" if len(drawn) > 12 else ""
    return Chart(
        title,
        x_label,
        y_label + (" (logarithmic)" if y_axis.logarithmic else ""),
        f"{title}: {y_label} against {x_label}. {described}{left_out}",
        [(x_axis.at(value), text) for value, text in _labelled(x_axis.ticks())],
        [(y_axis.at(value), text) for value, text in _labelled(y_axis.ticks())],
        lines,
    )


def linear_ticks(low: float | int, high: float | int, about: int = 5) -> list[float]:
    """Return about as many round values between two values; the values themselves if they are next to 0.

    >>> linear_ticks(0, 200), linear_ticks(14.3, 18.9), linear_ticks(0, 5e-324)
    ([0.0, 50.0, 100.0, 150.0, 200.0], [15.0, 16.0, 17.0, 18.0], [0.0, 5e-324])
    """
    raw = (high - low) / about
    if raw < SMALLEST_STEP:
        return [float(low), float(high)]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = min(4 * about, math.floor(high / step + 1e-9) - first + 1)
    return [round((first + i) * step, 12) for i in range(max(0, count))]


def logarithmic_ticks(low: float | int, high: float | int) -> list[float]:
    """Return values for ticks of a logarithmic axis: powers of ten, with 2 and 5 between them on a short axis.

    >>> logarithmic_ticks(0.9, 12), logarithmic_ticks(1, 1e6)
    ([1.0, 2.0, 5.0, 10.0], [1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0, 1000000.0])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 8)
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    found = [value for value in found if low * 0.999 <= value <= high * 1.001]
    return found if len(found) >= 3 else linear_ticks(low, high)


def number(value: float | int) -> str:
    """Return a number as short text.

    >>> [number(v) for v in (0.0, 1200000.0, 12345.0, 0.00012, 17.25, 3.14159265)]
    ['0', '1.2M', '12,345', '1.2e-4', '17.25', '3.142']
    """
    size = abs(value)
    if size >= 1e6 and size < 1e9:
        return f"{value / 1e6:g}M" if len(f"{value / 1e6:g}") < 7 else f"{value / 1e6:.2f}M"
    if size >= 1e9 or 0 < size < 1e-3:
        mantissa, _, power = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _labelled(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return values with their texts, with as many digits as make them differ."""
    for write in (number, "{:.6g}".format, "{:.9g}".format):
        texts = [write(value) for value in values]
        if len(set(texts)) == len(texts):
            break
    return list(zip(values, texts, strict=True))


def _axis(values: Sequence[float | int], start: float | int, end: float | int, logarithmic: bool) -> Axis:
    """Return the axis of values, with a range that is not empty."""
    low, high = min(values), max(values)
    logarithmic = logarithmic and low > 0
    if logarithmic:
        return (
            Axis(low, high, start, end, True) if high > low * 1.0001 else Axis(low / 1.5, high * 1.5, start, end, True)
        )
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-30):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    return Axis(low, high, start, end, False)


def _line(series: Series, group: int, x_axis: Axis, y_axis: Axis) -> Line:
    """Return a line in pixels."""
    places = [(x_axis.at(x), y_axis.at(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y in places)
    texts = [f"{series.name}: {number(y)} at {number(x)}" for x, y in series.points]
    is_marked = len(places) <= MARKED
    marks = [(x, y, text) for (x, y), text in zip(places, texts, strict=True)] if is_marked else []
    return Line(series.name, group % COLORS, group >= COLORS, path, marks)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most ``MOST_POINTS`` of some points, evenly spaced, with the first and the last."""
    if len(points) <= MOST_POINTS:
        return list(points)
    return [points[round(i * (len(points) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]


def _finite(point: Iterable[float | int]) -> bool:
    return all(abs(value) <= _LARGEST for value in point)

"""Made streams of rows with a known point of drift, or none: the same for every seed on every machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

DIGITS = Path(__file__).parent.parent / "fixtures/digits"


@dataclass
class Stream:
    """Columns by name, of the reference and of the rows to judge. `onset` is the first drifted window; None where nothing drifts."""

    name: str
    reference: dict[str, list]
    rows: dict[str, list]
    window: int
    onset: int | None
    period: int | None = None
    tags: list[str] = field(default_factory=list)


def columns(matrix, prefix="x"):
    return {f"{prefix}{place:02}": matrix[:, place] for place in range(matrix.shape[1])}


def normal(rng, rows, width):
    """Columns with a common cause, so that they are not independent."""
    common = rng.normal(size=(rows, 1))
    return 0.5 * common + np.sqrt(0.75) * rng.normal(size=(rows, width))


def autoregressive(rng, rows, width, memory):
    values = np.empty((rows, width))
    state = rng.normal(size=width)
    for row in range(rows):
        state = memory * state + np.sqrt(1 - memory**2) * rng.normal(size=width)
        values[row] = state
    return values


def seasonal(rng, rows, window, period, width, first=0):
    phase = (np.arange(first, first + rows) // window) % period
    wave = 1.5 * np.sin(2 * np.pi * phase / period)
    values = rng.normal(size=(rows, width))
    values[:, : width // 2 + 1] += wave[:, None]
    return values


def discrete(rng, rows):
    count = rng.poisson(2.0, rows)
    return {
        "count": count,
        "flag": (rng.random(rows) < 0.03).astype(int),
        "coin": (rng.random(rows) < 0.5).astype(int),
        "grade": rng.integers(1, 6, rows),
        "mostly_zero": np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(3.0, rows)).round(2),
        "rounded": rng.normal(20.0, 2.0, rows).round(0),
        "constant": np.full(rows, 7),
        "zipf": np.minimum(rng.zipf(1.8, rows), 5_000),
    }


def heavy(rng, rows):
    return {
        "cauchy": rng.standard_cauchy(rows),
        "t2": rng.standard_t(2, rows),
        "lognormal": rng.lognormal(0.0, 2.0, rows),
        "pareto": rng.pareto(1.1, rows),
        "laplace": rng.laplace(size=rows),
    }


WORDS = np.array([f"word{place:03}" for place in range(400)])


def categorical(rng, rows):
    shares = 1.0 / np.arange(1, 401) ** 1.3
    return {
        "colour": rng.choice(["red", "green", "blue"], rows, p=[0.5, 0.3, 0.2]),
        "word": rng.choice(WORDS, rows, p=shares / shares.sum()),
        "site": rng.choice([f"s{place}" for place in range(30)], rows),
        "weight": rng.gamma(2.0, 1.0, rows),
    }


def outputs(rng, rows, shares=(0.6, 0.3, 0.1), ease=8.0):
    return {
        "prediction": rng.choice(["cat", "dog", "owl"], rows, p=shares),
        "confidence": rng.beta(ease, 2.0, rows),
    }


def mixed(rng, rows):
    both = columns(normal(rng, rows, 6)) | categorical(rng, rows) | outputs(rng, rows)
    holes = rng.random(rows) < 0.05
    both["x03"] = np.where(holes, np.nan, both["x03"])
    return both


def digits(rng, path, rows):
    table = np.genfromtxt(DIGITS / path, delimiter=",", names=True)
    names = [name for name in table.dtype.names if name[0] == "p" and name[1:].isdigit()]
    images = np.column_stack([table[name] for name in names])
    return names, images[rng.integers(0, len(images), rows)]


def nulls(seed, windows=150):
    """Streams in which nothing drifts."""

    def make(name, window, reference_rows, of, tags=()):
        rng = np.random.default_rng([seed, sum(map(ord, name))])
        return Stream(name, of(rng, reference_rows), of(rng, window * windows), window, None, None, list(tags))

    yield make("gauss", 200, 2_000, lambda rng, rows: columns(normal(rng, rows, 10)))
    yield make("heavy-tails", 200, 2_000, heavy)
    yield make("discrete", 200, 2_000, discrete)
    yield make("categorical", 200, 2_000, categorical)
    yield make("mixed", 200, 2_000, mixed)
    yield make("tiny-windows", 25, 1_000, mixed)
    yield make("ten-rows", 10, 500, mixed)
    yield make("small-baseline", 100, 200, mixed)
    yield make("small-discrete", 100, 150, discrete)
    yield make("large-windows", 2_000, 2_000, lambda rng, rows: columns(normal(rng, rows, 4)) | heavy(rng, rows))
    yield make("autocorrelated-0.3", 200, 2_000, lambda rng, rows: columns(autoregressive(rng, rows, 6, 0.3)))
    yield make("autocorrelated-0.5", 100, 3_000, lambda rng, rows: columns(autoregressive(rng, rows, 6, 0.5)))
    yield make("fifty-columns", 200, 2_000, lambda rng, rows: columns(normal(rng, rows, 50)))
    yield make("fifty-small", 50, 500, lambda rng, rows: columns(normal(rng, rows, 50)))
    for period, window in ((24, 50), (7, 200)):
        rng = np.random.default_rng([seed, period])
        rows = window * period
        yield Stream(
            f"seasonal-{period}",
            columns(seasonal(rng, rows * 8, window, period, 5)),
            columns(seasonal(rng, window * windows, window, period, 5)),
            window,
            None,
            period,
        )


def drifts(seed, before=30, after=40):
    """Streams that drift from window `before` on."""

    def make(name, of, change, window=200, reference_rows=2_000):
        rng = np.random.default_rng([seed, sum(map(ord, name)), 1])
        reference = of(rng, reference_rows)
        quiet, late = of(rng, window * before), of(rng, window * after)
        late = change(late, rng)
        rows = {key: np.concatenate([quiet[key], late[key]]) for key in reference}
        return Stream(name, reference, rows, window, before)

    def ten(rng, rows):
        return columns(normal(rng, rows, 10))

    def with_outputs(rng, rows):
        return columns(normal(rng, rows, 5)) | outputs(rng, rows)

    def add(column, by):
        return lambda late, rng: late | {column: late[column] + by}

    def times(column, by):
        return lambda late, rng: late | {column: late[column] * by}

    def some(column, share, of):
        def change(late, rng):
            hit = rng.random(len(late[column])) < share
            return late | {column: np.where(hit, of(late[column], rng), late[column])}

        return change

    for by in (0.2, 0.35, 0.5, 1.0):
        yield make(f"mean+{by}", ten, add("x04", by))
    yield make("mean+0.5-tiny", ten, add("x04", 0.5), window=25, reference_rows=500)
    yield make("mean-all+0.15", ten, lambda late, rng: {key: value + 0.15 for key, value in late.items()})
    for by in (0.6, 1.25, 1.5, 2.0):
        yield make(f"variance*{by}", ten, times("x04", by))
    yield make("correlation-0-to-0.6", lambda rng, rows: columns(rng.normal(size=(rows, 8))), lambda late, rng: late | {"x01": 0.6 * late["x00"] + 0.8 * late["x01"]})
    yield make("correlation-0-to-0.3", lambda rng, rows: columns(rng.normal(size=(rows, 8))), lambda late, rng: late | {"x01": 0.3 * late["x00"] + np.sqrt(0.91) * late["x01"]})

    def tied(rng, rows):
        values = rng.normal(size=(rows, 8))
        values[:, 1] = 0.8 * values[:, 0] + 0.6 * values[:, 1]
        return columns(values)

    yield make("correlation-0.8-to-0", tied, lambda late, rng: late | {"x01": rng.permutation(late["x01"])})
    yield make("sign-flip", tied, lambda late, rng: late | {"x01": -late["x01"]})
    yield make("prior-shift", with_outputs, lambda late, rng: late | {"prediction": outputs(rng, len(late["x00"]), (0.45, 0.4, 0.15))["prediction"]})
    yield make("confidence-falls", with_outputs, lambda late, rng: late | {"confidence": rng.beta(6.0, 2.0, len(late["x00"]))})
    yield make("category-shift", categorical, lambda late, rng: late | {"colour": rng.choice(["red", "green", "blue"], len(late["colour"]), p=[0.4, 0.35, 0.25])})
    yield make("new-category-2%", categorical, some("colour", 0.02, lambda values, rng: "mauve"))
    yield make("new-category-10%", categorical, some("colour", 0.10, lambda values, rng: "mauve"))
    yield make("missing-2%", ten, some("x02", 0.02, lambda values, rng: np.nan))
    yield make("missing-10%", ten, some("x02", 0.10, lambda values, rng: np.nan))
    yield make("outliers-1%", ten, some("x02", 0.01, lambda values, rng: 10.0 * rng.standard_normal(len(values))))
    yield make("outliers-3%", ten, some("x02", 0.03, lambda values, rng: 6.0 * rng.standard_normal(len(values))))
    yield make("ramp-to-1", ten, lambda late, rng: late | {"x04": late["x04"] + np.linspace(0, 1, len(late["x04"]))})
    yield make("ramp-to-0.5", ten, lambda late, rng: late | {"x04": late["x04"] + np.linspace(0, 0.5, len(late["x04"]))})
    yield make("stuck", ten, lambda late, rng: late | {"x04": np.full(len(late["x04"]), 0.1)})
    yield make("two-humps", ten, lambda late, rng: late | {"x04": np.sign(late["x04"]) * 0.9 + 0.436 * rng.standard_normal(len(late["x04"]))})
    yield make("heavy-scale", heavy, times("lognormal", 2.0))
    yield make("heavy-shift", heavy, add("cauchy", 0.7))
    yield make("discrete-rate", discrete, lambda late, rng: late | {"count": rng.poisson(2.5, len(late["count"]))})
    yield make("flag-3%-to-7%", discrete, lambda late, rng: late | {"flag": (rng.random(len(late["flag"])) < 0.07).astype(int)})
    yield make("fifty-one-shifts", lambda rng, rows: columns(normal(rng, rows, 50)), add("x33", 0.4))
    yield make("autocorrelated-shift", lambda rng, rows: columns(autoregressive(rng, rows, 6, 0.4)), add("x01", 0.6))
    yield make("small-baseline-shift", ten, add("x04", 0.8), window=100, reference_rows=200)

    for name, path, change in (
        ("image-noise", "data/holdout.csv", lambda images, rng: np.clip(images + rng.normal(0, 2.0, images.shape), 0, 16).round()),
        ("image-rotation", "data/drifted.csv", lambda images, rng: images),
    ):
        rng = np.random.default_rng([seed, sum(map(ord, name)), 1])
        names, reference = digits(rng, "v2/reference.csv", 1_500)
        _, quiet = digits(rng, "v2/reference.csv", 200 * before)
        _, late = digits(rng, path, 200 * after)
        rows = np.concatenate([quiet, change(late, rng)])
        of = lambda matrix: dict(zip(names, matrix.T))  # noqa: E731
        yield Stream(name, of(reference), of(rows), 200, before, tags=["pictures"])

    for period, window, by in ((24, 50, 0.5), (7, 200, 0.4)):
        rng = np.random.default_rng([seed, period, 2])
        rows = seasonal(rng, window * (before + after), window, period, 5)
        rows[window * before :, 1] += by
        reference = columns(seasonal(rng, window * period * 8, window, period, 5))
        yield Stream(f"seasonal-{period}-shift", reference, columns(rows), window, before, period)


def write(columns, path):
    """As CSV; not a number is an empty cell."""
    with open(path, "w") as out:
        out.write(",".join(columns) + "\n")
        cells = [text(values) for values in columns.values()]
        out.writelines(",".join(row) + "\n" for row in zip(*cells))


def text(values):
    values = np.asarray(values)
    if values.dtype.kind == "U" and np.isin("nan", values):
        values = np.where(values == "nan", "", values)
    if values.dtype.kind != "f":
        return [str(value) for value in values]
    return ["" if np.isnan(value) else f"{value:.9g}" for value in values]

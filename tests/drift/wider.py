"""Streams of distributions on which no threshold was chosen: what a model meets in the field and a textbook does not show."""

from __future__ import annotations

import numpy as np
from streams import Stream, autoregressive, columns, normal

TEXTS = np.array(["ok", "warn", "fail", "retry", "unknown"])


def counts(rng, rows):
    return {
        "poisson": rng.poisson(7.0, rows),
        "negative_binomial": rng.negative_binomial(2, 0.1, rows),
        "zero_inflated": np.where(rng.random(rows) < 0.8, 0, rng.poisson(4.0, rows)),
        "binomial": rng.binomial(12, 0.3, rows),
        "geometric": rng.geometric(0.2, rows),
    }


def spikes(rng, rows):
    """Constants that are something else once in a long while."""
    return {
        "spike": np.where(rng.random(rows) < 0.002, 100.0, 5.0),
        "rare": np.where(rng.random(rows) < 0.01, rng.normal(50.0, 10.0, rows).round(1), 0.0),
        "error_code": np.where(rng.random(rows) < 0.003, rng.integers(400, 600, rows), 0),
        "still": np.full(rows, 3.25),
    }


def bounded(rng, rows):
    return {
        "arcsine": rng.beta(0.5, 0.5, rows),
        "percent": np.clip(rng.normal(90.0, 15.0, rows), 0.0, 100.0),
        "angle": rng.uniform(0.0, 360.0, rows),
        "byte": rng.integers(0, 256, rows),
        "share": rng.beta(1.2, 30.0, rows),
    }


def scales(rng, rows):
    return {
        "tiny": rng.normal(0.0, 1e-9, rows),
        "huge": rng.normal(5e11, 1e9, rows),
        "offset": rng.normal(1_000_000.0, 0.5, rows),
        "money": rng.lognormal(6.0, 1.5, rows).round(2),
        "two_peaks": np.where(rng.random(rows) < 0.3, rng.normal(-4.0, 0.3, rows), rng.normal(4.0, 1.0, rows)),
    }


def tails(rng, rows):
    return {
        "t15": rng.standard_t(1.5, rows),
        "levy": 1.0 / rng.normal(size=rows) ** 2,
        "weibull": rng.weibull(0.5, rows),
        "mixture": np.where(rng.random(rows) < 0.02, rng.normal(0.0, 20.0, rows), rng.normal(size=rows)),
    }


def names(count):
    return np.array([f"n{place:04}" for place in range(count)])


def cardinal(rng, rows):
    """Words by the thousand: each window has some that the reference has never had."""
    shares = 1.0 / np.arange(1, 3_001)
    return {
        "uniform": rng.choice(names(1_000), rows),
        "zipf": rng.choice(names(3_000), rows, p=shares / shares.sum()),
        "few": rng.choice(TEXTS, rows, p=[0.9, 0.06, 0.02, 0.015, 0.005]),
        "amount": rng.exponential(10.0, rows),
    }


def ragged(rng, rows):
    """Numbers, texts and holes, as an export of a database has them."""
    note = np.array([f"free text {place}" for place in rng.integers(0, 10**9, rows)])
    return {
        "mostly_missing": np.where(rng.random(rows) < 0.7, np.nan, rng.normal(size=rows)),
        "some_missing": np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2.0, 3.0, rows)),
        "note": note,
        "status": rng.choice(TEXTS, rows, p=[0.6, 0.2, 0.1, 0.05, 0.05]),
        "blank_status": np.where(rng.random(rows) < 0.2, "", rng.choice(TEXTS, rows)),
        "yes": rng.choice(["yes", "no"], rows, p=[0.97, 0.03]),
    }


def markov(rng, rows, stay=0.7):
    """Categories that like to stay, and a number that follows them."""
    state, states = 0, np.empty(rows, int)
    moves, targets = rng.random(rows), rng.integers(0, 4, rows)
    for row in range(rows):
        state = state if moves[row] < stay else targets[row]
        states[row] = state
    return {"mode": np.array(["idle", "run", "stop", "test"])[states], "load": states * 1.5 + rng.normal(size=rows)}


def batches(rng, rows, size=20):
    """Rows come in lots that have something in common."""
    lots = rng.normal(0.0, 0.4, (-(-rows // size), 4)).repeat(size, axis=0)[:rows]
    return columns(lots + rng.normal(size=(rows, 4)))


def ties(rng, rows):
    """Answers on five steps, alike among each other; and a column there twice."""
    common = rng.normal(size=rows)
    answers = {f"q{place}": np.clip(np.round(3 + 0.7 * common + rng.normal(size=rows)), 1, 5).astype(int) for place in range(6)}
    return answers | {"same": answers["q0"], "double": answers["q0"] * 2.0}


def ar(memory, width=5):
    return lambda rng, rows: columns(autoregressive(rng, rows, width, memory))


def wide(width):
    return lambda rng, rows: columns(normal(rng, rows, width))


def together(*of):
    def make(rng, rows):
        whole = {}
        for one in of:
            whole |= one(rng, rows)
        return whole

    return make


def nulls(seed, windows=150):
    def make(name, of, window=200, reference_rows=2_000, count=windows):
        rng = np.random.default_rng([seed, sum(map(ord, name)), 7])
        return Stream(name, of(rng, reference_rows), of(rng, window * count), window, None, None)

    for of in (counts, spikes, bounded, scales, tails, cardinal, ragged, ties):
        yield make(f"{of.__name__}-50", of, 50, 1_000)
        yield make(f"{of.__name__}-200", of)
        yield make(f"{of.__name__}-5000", of, 5_000, 10_000, max(10, windows // 10))
    yield make("everything", together(counts, spikes, bounded, scales, tails, cardinal, ragged), 300, 3_000)
    yield make("one-column-50", wide(1), 50, 500)
    yield make("one-column-5000", wide(1), 5_000, 10_000, max(10, windows // 10))
    yield make("two-hundred-columns", wide(200), 200, 2_000, max(10, windows // 4))
    yield make("two-hundred-columns-50", wide(200), 50, 500, max(10, windows // 4))
    yield make("tiny-reference", together(counts, bounded), 50, 100)
    for memory in (0.2, 0.6, 0.8, 0.9):
        yield make(f"ar-{memory}", ar(memory), 200, 5_000)
    yield make("ar-0.7-50", ar(0.7), 50, 3_000)
    yield make("ar-0.5-5000", ar(0.5), 5_000, 20_000, max(10, windows // 10))
    yield make("markov", markov, 200, 4_000)
    yield make("batches", batches, 200, 4_000)


def drifts(seed, before=25, after=30):
    def make(name, of, change, window=200, reference_rows=2_000):
        rng = np.random.default_rng([seed, sum(map(ord, name)), 8])
        reference = of(rng, reference_rows)
        quiet, late = of(rng, window * before), of(rng, window * after)
        late = late | change(late, rng, len(next(iter(late.values()))))
        return Stream(name, reference, {key: np.concatenate([quiet[key], late[key]]) for key in reference}, window, before)

    yield make("counts/poisson-7-to-8", counts, lambda late, rng, n: {"poisson": rng.poisson(8.0, n)})
    yield make("counts/more-zeros", counts, lambda late, rng, n: {"zero_inflated": np.where(rng.random(n) < 0.9, 0, rng.poisson(4.0, n))})
    yield make("counts/overdispersed", counts, lambda late, rng, n: {"poisson": rng.negative_binomial(7, 0.5, n)})
    yield make("spikes/five-times-as-many", spikes, lambda late, rng, n: {"spike": np.where(rng.random(n) < 0.02, 100.0, 5.0)})
    yield make("spikes/constant-moves", spikes, lambda late, rng, n: {"still": np.full(n, 3.5)})
    yield make("spikes/constant-wakes", spikes, lambda late, rng, n: {"still": np.where(rng.random(n) < 0.05, 3.5, 3.25)})
    yield make("bounded/saturates", bounded, lambda late, rng, n: {"percent": np.clip(rng.normal(97.0, 15.0, n), 0.0, 100.0)})
    yield make("bounded/arcsine-flattens", bounded, lambda late, rng, n: {"arcsine": rng.random(n)})
    yield make("bounded/byte-loses-low-bits", bounded, lambda late, rng, n: {"byte": late["byte"] & 0xE0})
    yield make("bounded/range-narrows", bounded, lambda late, rng, n: {"angle": rng.uniform(90.0, 270.0, n)})
    yield make("scales/unit-changes", scales, lambda late, rng, n: {"tiny": late["tiny"] * 1_000})
    yield make("scales/huge+0.5sd", scales, lambda late, rng, n: {"huge": late["huge"] + 5e8})
    yield make("scales/peak-dies", scales, lambda late, rng, n: {"two_peaks": rng.normal(4.0, 1.0, n)})
    yield make("scales/peak-grows", scales, lambda late, rng, n: {"two_peaks": np.where(rng.random(n) < 0.45, rng.normal(-4.0, 0.3, n), rng.normal(4.0, 1.0, n))})
    yield make("tails/shift", tails, lambda late, rng, n: {"t15": late["t15"] + 0.6})
    yield make("tails/scale-2", tails, lambda late, rng, n: {"weibull": late["weibull"] * 2.0})
    yield make("tails/thinner", tails, lambda late, rng, n: {"t15": rng.normal(size=n)})
    yield make("cardinal/status-shift", cardinal, lambda late, rng, n: {"few": rng.choice(TEXTS, n, p=[0.82, 0.12, 0.03, 0.02, 0.01])})
    yield make("cardinal/new-words", cardinal, lambda late, rng, n: {"uniform": np.where(rng.random(n) < 0.3, "new", late["uniform"])})
    yield make("cardinal/one-word-surges", cardinal, lambda late, rng, n: {"uniform": np.where(rng.random(n) < 0.06, "n0007", late["uniform"])})
    yield make("ragged/holes-appear", ragged, lambda late, rng, n: {"yes": np.where(rng.random(n) < 0.05, "", late["yes"])})
    yield make("ragged/holes-double", ragged, lambda late, rng, n: {"some_missing": np.where(rng.random(n) < 0.12, np.nan, late["some_missing"])})
    yield make("ragged/holes-vanish", ragged, lambda late, rng, n: {"some_missing": rng.gamma(2.0, 3.0, n)})
    yield make("ragged/text-among-numbers", ragged, lambda late, rng, n: {"some_missing": np.where(rng.random(n) < 0.05, "n/k", late["some_missing"].astype(str))})
    yield make("ties/answers-move", ties, lambda late, rng, n: {"q2": np.clip(late["q2"] + (rng.random(n) < 0.25), 1, 5)})
    yield make("ties/answers-part", ties, lambda late, rng, n: {"q2": rng.permutation(late["q2"])})
    yield make("ties/copy-differs", ties, lambda late, rng, n: {"same": rng.permutation(late["same"])})
    yield make("wide/one-of-200", wide(200), lambda late, rng, n: {"x150": late["x150"] + 0.5})
    yield make("wide/all-of-200+0.1", wide(200), lambda late, rng, n: {key: values + 0.1 for key, values in late.items()})
    yield make("wide/common-cause-goes", wide(200), lambda late, rng, n: columns(rng.normal(size=(n, 200))))
    yield make("wide/swap-two-columns", together(wide(4), ties), lambda late, rng, n: {"x00": late["x01"], "q1": late["q2"], "x01": -late["x00"]})
    yield make("one/50-rows+0.5", wide(1), lambda late, rng, n: {"x00": late["x00"] + 0.5}, 50, 500)
    yield make("one/5000-rows+0.15", wide(1), lambda late, rng, n: {"x00": late["x00"] + 0.15}, 5_000, 10_000)
    yield make("ar/0.6+1sd", ar(0.6), lambda late, rng, n: {"x01": late["x01"] + 1.0}, 200, 5_000)
    yield make("ar/0.8+1sd", ar(0.8), lambda late, rng, n: {"x01": late["x01"] + 1.0}, 200, 5_000)
    yield make("ar/stuck", ar(0.6), lambda late, rng, n: {"x02": np.full(n, late["x02"][0])}, 200, 5_000)
    yield make("markov/mode-shift", markov, lambda late, rng, n: {"mode": np.where(rng.random(n) < 0.25, "stop", late["mode"])}, 200, 4_000)
    yield make("batches/+0.6", batches, lambda late, rng, n: {"x01": late["x01"] + 0.6}, 200, 4_000)
    yield make("correlation/three-way-parity", parity(False), lambda late, rng, n: parity(True)(rng, n))
    yield make("correlation/ring", wide(6), lambda late, rng, n: ring(rng, n, 6))
    yield make("outliers/0.5%-at-20sd", wide(6), lambda late, rng, n: {"x02": np.where(rng.random(n) < 0.005, 20.0, late["x02"])})
    yield make("outliers/joint", joint(0.0), lambda late, rng, n: joint(0.05)(rng, n))
    yield make("frozen/quarter-of-rows", wide(6), lambda late, rng, n: {"x03": np.where(rng.random(n) < 0.25, 0.5, late["x03"])})
    yield make("ramp/variance", wide(6), lambda late, rng, n: {"x01": late["x01"] * np.linspace(1.0, 2.0, n)})
    yield make("blink/on-and-off", wide(6), lambda late, rng, n: {"x01": late["x01"] + np.where(np.arange(n) // 800 % 2 == 0, 1.0, 0.0)})


def parity(is_tied):
    """Three signs whose product is always positive: each two are as independent as ever."""

    def make(rng, rows):
        values = np.abs(rng.normal(size=(rows, 3)))
        signs = rng.choice([-1.0, 1.0], (rows, 3))
        if is_tied:
            signs[:, 2] = signs[:, 0] * signs[:, 1]
        return columns(np.hstack([values * signs, rng.normal(size=(rows, 2))]))

    return make


def ring(rng, rows, width):
    """Each column goes with the next, where all went with one."""
    noise = rng.normal(size=(rows, width + 1))
    return columns((noise[:, :-1] + noise[:, 1:]) / np.sqrt(2.0))


def joint(share):
    """Eight columns that three causes explain; odd rows keep each column's range and break the pattern."""

    def make(rng, rows):
        mixing = np.random.default_rng(5).normal(size=(3, 8))
        values = rng.normal(size=(rows, 3)) @ mixing + 0.1 * rng.normal(size=(rows, 8))
        odd = rng.random(rows) < share
        values[odd] = np.apply_along_axis(rng.permutation, 0, values)[odd]
        return columns(values)

    return make

"""Streams that were written after the verdicts were: kinds of drift, and of peace, that neither `streams` nor `wider` has."""

from __future__ import annotations

import numpy as np
from streams import Stream, autoregressive, columns, normal
from wider import names, together


def plain(rng, rows, width=8):
    return columns(normal(rng, rows, width))


def thirty(rng, rows):
    """Thirty columns of ten kinds."""
    kinds = (
        lambda: rng.normal(size=rows),
        lambda: rng.exponential(2.0, rows),
        lambda: rng.standard_t(3, rows),
        lambda: rng.poisson(3.0, rows),
        lambda: np.where(rng.random(rows) < 0.7, 0.0, rng.gamma(2.0, 2.0, rows)),
        lambda: np.where(rng.random(rows) < 0.4, rng.normal(-3.0, 0.5, rows), rng.normal(2.0, 1.0, rows)),
        lambda: rng.uniform(-1.0, 1.0, rows),
        lambda: rng.choice(["a", "b", "c", "d"], rows, p=[0.6, 0.25, 0.1, 0.05]),
        lambda: (rng.random(rows) < 0.2).astype(int),
        lambda: rng.normal(1_000.0, 25.0, rows).round(1),
    )
    return {f"f{place:02}": kinds[place % len(kinds)]() for place in range(30)}


def heteroscedastic(rng, rows):
    """The spread of one column hangs on another."""
    level = rng.gamma(2.0, 1.0, rows)
    return {"level": level, "noise": rng.normal(size=rows) * (0.2 + level), "other": rng.normal(size=rows)}


def clustered(rng, rows):
    """Calm and stormy times: each row is as likely up as down, and the size of its step resembles that of the one before (GARCH)."""
    values, variance = np.empty((rows, 3)), np.ones(3)
    step = np.zeros(3)
    for row in range(rows):
        variance = 0.05 + 0.15 * step**2 + 0.80 * variance
        step = np.sqrt(variance) * rng.normal(size=3)
        values[row] = step
    return columns(values)


def repeated(times):
    """Each row comes several times, as after a retry."""

    def make(rng, rows):
        once = plain(rng, -(-rows // times), 5)
        return {key: values.repeat(times)[:rows] for key, values in once.items()}

    return make


def rare(rng, rows, shares=(0.70, 0.25, 0.04, 0.007, 0.003)):
    return {
        "code": rng.choice(["ok", "slow", "retry", "abort", "panic"], rows, p=shares),
        "weight": rng.gamma(3.0, 1.0, rows),
    }


def cities(rng, rows, shift=0.0):
    """A hundred and twenty words, each as likely as it is long in the list."""
    shares = np.linspace(2.0, 0.2, 120)
    shares[100:] *= 1.0 + shift
    return {"city": rng.choice(names(120), rows, p=shares / shares.sum()), "age": rng.normal(40.0, 12.0, rows).round()}


def holes_of(shares):
    """A value is missing, by how likely its row's kind makes that."""

    def make(rng, rows):
        kind = rng.choice(["till", "web", "phone"], rows, p=[0.5, 0.3, 0.2])
        missing = rng.random(rows) < np.array([shares[one] for one in kind])
        return {"kind": kind, "amount": np.where(missing, np.nan, rng.lognormal(3.0, 0.6, rows)), "items": rng.poisson(2.0, rows)}

    return make


def classified(rng, rows, shares=(0.5, 0.3, 0.2)):
    """What a model says, and how sure it is, with the inputs that lead to it."""
    inputs = normal(rng, rows, 4)
    return columns(inputs) | {
        "prediction": rng.choice(["cat", "dog", "owl"], rows, p=shares),
        "confidence": rng.beta(9.0, 1.5, rows),
    }


def warming(rng, rows, memory=0.95):
    return columns(autoregressive(rng, rows, 4, memory))


def images(rng, rows, blur=0.0, gain=1.0):
    """Grey pictures of four by four: blots on a ground."""
    centre = rng.uniform(0.5, 3.5, (rows, 2))
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2) + 0.5
    distance = ((grid[None] - centre[:, None]) ** 2).sum(-1)
    pictures = 200.0 * np.exp(-distance / (0.8 + blur)) + 20.0
    return columns((gain * pictures + rng.normal(0.0, 6.0, pictures.shape)).clip(0, 255).round(), "p")


def sensors(rng, rows):
    """What a machine measures: a slow swing that all share, a counter of faults, a valve that is open or shut."""
    swing = np.sin(np.arange(rows) / 9.0 + rng.uniform(0, 6.28))
    return {
        "heat": 60.0 + 2.0 * swing + rng.normal(0, 1.0, rows),
        "pressure": 5.0 + 0.3 * swing + rng.normal(0, 0.2, rows),
        "faults": rng.poisson(0.05, rows),
        "valve": (rng.random(rows) < 0.5).astype(int),
        "volts": rng.normal(230.0, 1.5, rows).round(1),
    }


def in_order(stream, by):
    """Reference rows sorted by a column, as an export of a database is."""
    order = np.argsort(stream.reference[by], kind="stable")
    stream.reference = {key: np.asarray(values)[order] for key, values in stream.reference.items()}
    return stream


def nulls(seed, windows=150):
    def make(name, of, window=200, reference_rows=2_000, count=windows):
        rng = np.random.default_rng([seed, sum(map(ord, name)), 11])
        return Stream(name, of(rng, reference_rows), of(rng, window * count), window, None, None)

    for of in (thirty, heteroscedastic, rare, cities, classified, images, sensors):
        yield make(f"{of.__name__}", of)
        yield make(f"{of.__name__}-500-rows-known", of, 200, 500)
        yield make(f"{of.__name__}-50", of, 50, 1_000)
        yield make(f"{of.__name__}-5000", of, 5_000, 10_000, max(10, windows // 10))
    yield make("clustered", clustered, 200, 5_000)
    yield make("holes", holes_of({"till": 0.0, "web": 0.1, "phone": 0.3}))
    yield make("repeated-3", repeated(3), 200, 3_000)
    for memory in (0.95, 0.98, 0.99):
        yield make(f"warming-{memory}", lambda rng, rows, memory=memory: warming(rng, rows, memory), 200, 10_000)
    yield in_order(make("sorted-reference", plain), "x00")
    yield in_order(make("sorted-reference-500", plain, 100, 500), "x03")
    yield in_order(make("sorted-by-word", rare), "code")
    yield in_order(make("sorted-thirty", thirty), "f00")


def drifts(seed, before=25, after=30):
    def make(name, of, change, window=200, reference_rows=2_000):
        rng = np.random.default_rng([seed, sum(map(ord, name)), 12])
        reference = of(rng, reference_rows)
        quiet, late = of(rng, window * before), of(rng, window * after)
        late = late | change(late, rng, len(next(iter(late.values()))))
        rows = {key: np.concatenate([quiet[key], late[key]]) for key in reference}
        return Stream(name, reference, rows, window, before)

    # One column of thirty.
    yield make("thirty/normal+0.5", thirty, lambda late, rng, n: {"f10": late["f10"] + 0.5})
    yield make("thirty/exponential*1.3", thirty, lambda late, rng, n: {"f11": late["f11"] * 1.3})
    yield make("thirty/t3*1.5", thirty, lambda late, rng, n: {"f12": late["f12"] * 1.5})
    yield make("thirty/poisson-3-to-4", thirty, lambda late, rng, n: {"f13": rng.poisson(4.0, n)})
    yield make("thirty/zeros-70-to-80%", thirty, lambda late, rng, n: {"f14": np.where(rng.random(n) < 1 / 3, 0.0, late["f14"])})
    yield make("thirty/hump-40-to-55%", thirty, lambda late, rng, n: {"f15": np.where(rng.random(n) < 0.55, rng.normal(-3.0, 0.5, n), rng.normal(2.0, 1.0, n))})
    yield make("thirty/uniform-wider", thirty, lambda late, rng, n: {"f16": late["f16"] * 1.15})
    yield make("thirty/words", thirty, lambda late, rng, n: {"f17": rng.choice(["a", "b", "c", "d"], n, p=[0.5, 0.25, 0.17, 0.08])})
    yield make("thirty/flag-20-to-28%", thirty, lambda late, rng, n: {"f18": (rng.random(n) < 0.28).astype(int)})
    yield make("thirty/unit", thirty, lambda late, rng, n: {"f19": late["f19"] / 1_000.0})
    yield make("thirty/rounded-to-tens", thirty, lambda late, rng, n: {"f19": late["f19"].round(-1)})
    yield make("thirty/stuck", thirty, lambda late, rng, n: {"f09": np.full(n, late["f09"][0])})
    yield make("thirty/minus-one-for-missing", thirty, lambda late, rng, n: {"f01": np.where(rng.random(n) < 0.03, -1.0, late["f01"])})
    yield make("thirty/zero-for-missing", thirty, lambda late, rng, n: {"f00": np.where(rng.random(n) < 0.08, 0.0, late["f00"])})
    yield make("thirty/two-columns-swapped", thirty, lambda late, rng, n: {"f00": late["f02"], "f02": late["f00"]})
    yield make("thirty/50-rows+0.7", thirty, lambda late, rng, n: {"f10": late["f10"] + 0.7}, 50, 1_000)
    yield make("thirty/5000-rows+0.15", thirty, lambda late, rng, n: {"f10": late["f10"] + 0.15}, 5_000, 10_000)
    yield make("thirty/500-known+0.5", thirty, lambda late, rng, n: {"f10": late["f10"] + 0.5}, 200, 500)
    # Rare words and rare causes.
    yield make("rare/panic-0.3-to-3%", rare, lambda late, rng, n: {"code": rng.choice(["ok", "slow", "retry", "abort", "panic"], n, p=[0.68, 0.243, 0.04, 0.007, 0.03])})
    yield make("rare/abort-0.7-to-2.5%", rare, lambda late, rng, n: {"code": rng.choice(["ok", "slow", "retry", "abort", "panic"], n, p=[0.682, 0.25, 0.04, 0.025, 0.003])})
    yield make("rare/retry-goes", rare, lambda late, rng, n: {"code": np.where(late["code"] == "retry", "ok", late["code"])})
    yield make("rare/word-renamed", rare, lambda late, rng, n: {"code": np.where(late["code"] == "retry", "Retry", late["code"])})
    yield make("cities/twenty-rare-triple", cities, lambda late, rng, n: {"city": cities(rng, n, 2.0)["city"]})
    yield make("cities/upper-case", cities, lambda late, rng, n: {"city": np.char.upper(late["city"])})
    yield make("cities/all-alike", cities, lambda late, rng, n: {"city": rng.choice(names(120), n)})
    # Missing values of one kind of row.
    yield make("holes/of-one-word", holes_of({"till": 0.0, "web": 0.1, "phone": 0.3}), lambda late, rng, n: holes_of({"till": 0.1, "web": 0.1, "phone": 0.3})(rng, n))
    yield make("holes/rare-become-common", holes_of({"till": 0.0, "web": 0.0, "phone": 0.0}), lambda late, rng, n: holes_of({"till": 0.0, "web": 0.0, "phone": 0.05})(rng, n))
    # What models say.
    yield make("classes/two-swapped", classified, lambda late, rng, n: {"prediction": np.where(late["prediction"] == "cat", "dog", np.where(late["prediction"] == "dog", "cat", late["prediction"]))})
    yield make("classes/one-goes", classified, lambda late, rng, n: {"prediction": np.where(late["prediction"] == "owl", "dog", late["prediction"])})
    yield make("classes/new-one", classified, lambda late, rng, n: {"prediction": np.where(rng.random(n) < 0.03, "bat", late["prediction"])})
    yield make("classes/less-sure", classified, lambda late, rng, n: {"confidence": rng.beta(7.0, 1.7, n)})
    yield make("classes/always-sure", classified, lambda late, rng, n: {"confidence": np.full(n, 0.999)})
    # Spread that hangs on something, and rows that resemble each other.
    yield make("heteroscedastic/noisier", heteroscedastic, lambda late, rng, n: {"noise": late["noise"] * 1.3})
    yield make("heteroscedastic/level-up", heteroscedastic, lambda late, rng, n: {"level": late["level"] * 1.2})
    yield make("clustered/twice-the-storm", clustered, lambda late, rng, n: {"x01": late["x01"] * 2.0}, 200, 5_000)
    yield make("warming/+1.5sd", warming, lambda late, rng, n: {"x02": late["x02"] + 1.5}, 200, 10_000)
    yield make("sensors/heat+1", sensors, lambda late, rng, n: {"heat": late["heat"] + 1.0})
    yield make("sensors/faults-triple", sensors, lambda late, rng, n: {"faults": rng.poisson(0.15, n)})
    yield make("sensors/valve-shut", sensors, lambda late, rng, n: {"valve": np.zeros(n, int)})
    yield make("sensors/whole-volts", sensors, lambda late, rng, n: {"volts": late["volts"].round()})
    yield make("sensors/pressure-noisier", sensors, lambda late, rng, n: {"pressure": late["pressure"] + rng.normal(0, 0.25, n)})
    yield make("sensors/slow-drift", sensors, lambda late, rng, n: {"volts": (late["volts"] + np.linspace(0, 2.0, n)).round(1)})
    # Pictures.
    yield make("images/darker-10%", images, lambda late, rng, n: images(rng, n, gain=0.9))
    yield make("images/blurred", images, lambda late, rng, n: images(rng, n, blur=0.3))
    yield make("images/dead-pixel", images, lambda late, rng, n: {"p05": np.zeros(n)})
    yield make("images/hot-pixel", images, lambda late, rng, n: {"p10": np.full(n, 255.0)})
    yield make("images/mirrored", together(lambda rng, rows: lopsided(rng, rows)), lambda late, rng, n: mirrored(late))
    # Sorted references must not blind.
    yield in_order(make("sorted/+0.5", plain, lambda late, rng, n: {"x04": late["x04"] + 0.5}), "x00")
    yield in_order(make("sorted/variance*1.4", plain, lambda late, rng, n: {"x00": late["x00"] * 1.4}), "x00")
    yield make("repeated/+0.7", repeated(3), lambda late, rng, n: {"x02": late["x02"] + 0.7}, 200, 3_000)
    # Slow, short, and coming back.
    yield make("slow/60-windows-to-0.8", plain, lambda late, rng, n: {"x01": late["x01"] + np.linspace(0, 0.8, n)})
    yield make("slow/mixes-in", plain, lambda late, rng, n: {"x01": np.where(rng.random(n) < np.linspace(0, 0.5, n), late["x01"] + 2.0, late["x01"])})
    yield make("short/four-windows", plain, lambda late, rng, n: {"x01": late["x01"] + np.where(np.arange(n) < 800, 1.0, 0.0)})


def lopsided(rng, rows):
    """Blots that lie to the left."""
    pictures = images(rng, rows)
    return {key: values * (1.0 - 0.15 * (int(key[1:]) % 4)) for key, values in pictures.items()}


def mirrored(late):
    return {f"p{row * 4 + 3 - column:02}": late[f"p{row * 4 + column:02}"] for row in range(4) for column in range(4)}

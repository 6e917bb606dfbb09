"""Streams whose rows resemble each other: long memories, stretches of missing values, seasons that nobody has told of, copies, storms."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter
from streams import Stream, columns, normal
from wider import TEXTS


def remembering(rng, rows, width, memory):
    """Each row resembles the one before; from the long run on, not from zero."""
    steps = rng.normal(size=(rows, width)) * np.sqrt(1.0 - memory**2)
    steps[0] = rng.normal(size=width)
    return lfilter([1.0], [1.0, -memory], steps, axis=0)


def ar(memory, width=4):
    return lambda rng, rows: columns(remembering(rng, rows, width, memory))


def noisy(memory, share=0.3):
    """A slow swing below fresh noise: the next row says little, the next thousand say the same."""

    def make(rng, rows):
        slow = remembering(rng, rows, 3, memory)
        return columns(np.sqrt(share) * slow + np.sqrt(1.0 - share) * rng.normal(size=(rows, 3)))

    return make


def beside(memory):
    """One slow column among seven that are not."""

    def make(rng, rows):
        return {"slow": remembering(rng, rows, 1, memory)[:, 0]} | columns(normal(rng, rows, 6)) | {"word": rng.choice(TEXTS, rows)}

    return make


def stretches(rng, rows, mean, share):
    """Rows in which something is so, in stretches of `mean` rows that make up `share` of all."""
    state, states, row = rng.random() < share, np.zeros(rows, bool), 0
    while row < rows:
        length = rng.geometric(1.0 / (mean if state else mean * (1.0 - share) / share))
        states[row : row + length] = state
        state, row = not state, row + length
    return states


def outages(mean=60, share=0.1):
    """Values that are missing for a while."""

    def make(rng, rows):
        values = columns(normal(rng, rows, 4))
        for name in ("x01", "x02"):
            values[name] = np.where(stretches(rng, rows, mean, share), np.nan, values[name])
        return values

    return make


def seasons(period, amplitude=1.0):
    """A day that nobody has told of, from any hour on."""

    def make(rng, rows):
        angle = 2.0 * np.pi * (np.arange(rows) / period + rng.random())
        values = rng.normal(size=(rows, 4))
        values[:, 0] += amplitude * np.sin(angle)
        values[:, 1] += amplitude * np.cos(angle)
        day = np.sin(angle) > 0.3
        mode = np.where(rng.random(rows) < 0.2 + 0.5 * day, "busy", "idle")
        return columns(values) | {"mode": mode, "events": rng.poisson(2.0 + 2.0 * day)}

    return make


def copies(mean):
    """Rows that come again, directly after, a geometric number of times."""

    def make(rng, rows):
        times = rng.geometric(1.0 / mean, rows)
        place = np.repeat(np.arange(rows), times)[:rows]
        values = columns(normal(rng, rows, 4)) | {"word": rng.choice(TEXTS, rows, p=[0.6, 0.2, 0.1, 0.05, 0.05])}
        return {key: one[place] for key, one in values.items()}

    return make


def retried(rng, rows):
    """Half of the rows come once more within the next fifty."""
    once = -(-rows * 2 // 3)
    again = np.flatnonzero(rng.random(once) < 0.5)
    time = np.concatenate([np.arange(once, dtype=float), again + rng.uniform(1.0, 50.0, len(again))])
    place = np.concatenate([np.arange(once), again])[np.argsort(time)]
    place = np.resize(place, rows)
    values = columns(normal(rng, once, 4))
    return {key: one[place] for key, one in values.items()}


def storms(mean=200, calm=1.0, storm=3.0, share=0.3):
    """Calm and stormy times, each for a while."""

    def make(rng, rows):
        scale = np.where(stretches(rng, rows, mean, share), storm, calm)
        return columns(rng.normal(size=(rows, 3)) * scale[:, None]) | {"other": rng.normal(size=rows)}

    return make


def bursts(rng, rows):
    """Odd values come in bursts."""
    odd = stretches(rng, rows, 25, 0.03)
    return {"load": np.where(odd, rng.normal(12.0, 2.0, rows), rng.normal(size=rows)), "code": np.where(odd, "fail", rng.choice(TEXTS[:2], rows)), "heat": rng.normal(size=rows)}


def staying(stay):
    """Categories that stay, and a number that follows them."""

    def make(rng, rows):
        moves = rng.random(rows) > stay
        moves[0] = True
        state = rng.integers(0, 4, rows)[np.maximum.accumulate(np.where(moves, np.arange(rows), 0))]
        return {"mode": np.array(["idle", "run", "stop", "test"])[state], "load": 1.5 * state + rng.normal(size=rows), "volts": rng.normal(size=rows)}

    return make


def lots(size, spread):
    """Rows of a lot have something in common."""

    def make(rng, rows):
        common = rng.normal(0.0, spread, (-(-rows // size), 3)).repeat(size, axis=0)[:rows]
        return columns(common + rng.normal(size=(rows, 3)))

    return make


def steady(rng, rows):
    return columns(normal(rng, rows, 6)) | {"word": rng.choice(TEXTS, rows, p=[0.6, 0.2, 0.1, 0.05, 0.05])}


NULLS = (
    ("ar-0.97", ar(0.97), 200, 5_000),
    ("ar-0.99", ar(0.99), 200, 10_000),
    ("ar-0.99-short", ar(0.99), 200, 2_000),
    ("ar-0.99-50", ar(0.99), 50, 3_000),
    ("ar-0.995-1000", ar(0.995), 1_000, 10_000),
    ("ar-0.998", ar(0.998), 200, 10_000),
    ("ar-0.9995", ar(0.9995), 200, 5_000),
    ("noisy-0.99", noisy(0.99), 200, 5_000),
    ("noisy-0.998", noisy(0.998), 100, 10_000),
    ("beside-0.99", beside(0.99), 200, 5_000),
    ("outages", outages(), 200, 5_000),
    ("outages-long", outages(300, 0.15), 200, 5_000),
    ("seasons-2400", seasons(2_400), 100, 10_000),
    ("seasons-1440", seasons(1_440, 0.5), 200, 6_000),
    ("copies-5", copies(5), 200, 3_000),
    ("copies-40", copies(40), 200, 5_000),
    ("retried", retried, 200, 3_000),
    ("storms", storms(), 200, 6_000),
    ("storms-short", storms(40), 100, 3_000),
    ("bursts", bursts, 200, 5_000),
    ("staying-0.97", staying(0.97), 200, 6_000),
    ("lots-100", lots(100, 0.3), 200, 6_000),
    ("lots-500", lots(500, 0.3), 200, 10_000),
)


def nulls(seed, windows=150):
    for name, of, window, reference_rows in NULLS:
        rng = np.random.default_rng([seed, sum(map(ord, name)), 13])
        yield Stream(name, of(rng, reference_rows), of(rng, window * windows), window, None)


def add(column, by):
    return lambda late, rng, n: {column: late[column] + by}


def times(column, by):
    return lambda late, rng, n: {column: late[column] * by}


def missing(column, share):
    return lambda late, rng, n: {column: np.where(rng.random(n) < share, np.nan, late[column])}


def words(column, share, word):
    return lambda late, rng, n: {column: np.where(rng.random(n) < share, word, late[column])}


def stuck(column):
    return lambda late, rng, n: {column: np.full(n, late[column][0])}


DRIFTS = (
    ("ar-0.9/+1sd", ar(0.9), add("x01", 1.0), 200, 5_000),
    ("ar-0.97/+2sd", ar(0.97), add("x01", 2.0), 200, 10_000),
    ("ar-0.98/+2sd", ar(0.98), add("x01", 2.0), 200, 10_000),
    ("ar-0.99/+4sd", ar(0.99), add("x01", 4.0), 200, 10_000),
    ("ar-0.9/twice-as-wide", ar(0.9), times("x02", 2.0), 200, 5_000),
    ("ar-0.97/stuck", ar(0.97), stuck("x02"), 200, 5_000),
    ("ar-0.99/missing-10%", ar(0.99), missing("x03", 0.1), 200, 10_000),
    ("ar-0.97/unit", ar(0.97), times("x00", 100.0), 200, 5_000),
    ("noisy-0.99/+1sd", noisy(0.99), add("x00", 1.0), 200, 10_000),
    ("noisy-0.98/+1sd", noisy(0.98), add("x00", 1.0), 200, 10_000),
    ("beside/another+0.5", beside(0.99), add("x02", 0.5), 200, 5_000),
    ("beside/another*1.5", beside(0.99), times("x03", 1.5), 200, 5_000),
    ("beside/another-missing", beside(0.998), missing("x04", 0.05), 200, 5_000),
    ("beside/another-word", beside(0.998), words("word", 0.1, "new"), 200, 5_000),
    ("beside/words-shift", beside(0.998), words("word", 0.15, "ok"), 200, 5_000),
    ("beside/two-apart", beside(0.998), lambda late, rng, n: {"x01": rng.permutation(late["x01"])}, 200, 5_000),
    ("beside/ramp", beside(0.99), lambda late, rng, n: {"x05": late["x05"] + np.linspace(0.0, 1.0, n)}, 200, 5_000),
    ("outages/+0.5", outages(), add("x01", 0.5), 200, 5_000),
    ("outages/other+0.5", outages(), add("x03", 0.5), 200, 5_000),
    ("outages/half-missing", outages(), missing("x02", 0.5), 200, 5_000),
    ("outages/other-missing-3%", outages(), missing("x00", 0.03), 200, 5_000),
    ("outages/none-known", outages(), lambda late, rng, n: {"x01": np.full(n, np.nan)}, 200, 5_000),
    ("seasons/other+0.5", seasons(2_400), add("x02", 0.5), 200, 10_000),
    ("seasons/+3", seasons(1_000), add("x00", 3.0), 200, 10_000),
    ("seasons/other*1.5", seasons(2_400), times("x03", 1.5), 200, 10_000),
    ("seasons/new-mode", seasons(1_000), words("mode", 0.05, "off"), 200, 10_000),
    ("seasons/events-double", seasons(1_000), lambda late, rng, n: {"events": late["events"] * 2}, 200, 10_000),
    ("copies-5/+1", copies(5), add("x02", 1.0), 200, 3_000),
    ("copies-5/word", copies(5), words("word", 0.3, "fail"), 200, 3_000),
    ("copies-5/twice-as-wide", copies(5), times("x01", 2.0), 200, 3_000),
    ("copies-40/+2", copies(40), add("x02", 2.0), 200, 5_000),
    ("retried/+0.6", retried, add("x02", 0.6), 200, 3_000),
    ("retried/missing", retried, missing("x02", 0.05), 200, 3_000),
    ("storms/+2", storms(60), add("x01", 2.0), 200, 6_000),
    ("storms/other+0.5", storms(), add("other", 0.5), 200, 6_000),
    ("storms/three-times", storms(40), times("x02", 3.0), 200, 6_000),
    ("bursts/heat+0.5", bursts, add("heat", 0.5), 200, 5_000),
    ("bursts/new-code", bursts, words("code", 0.05, "new"), 200, 5_000),
    ("bursts/ten-times", bursts, lambda late, rng, n: {"load": np.where(rng.random(n) < 0.3, rng.normal(12.0, 2.0, n), late["load"])}, 200, 5_000),
    ("staying/volts+0.5", staying(0.97), add("volts", 0.5), 200, 6_000),
    ("staying/load+2", staying(0.9), add("load", 2.0), 200, 6_000),
    ("staying/new-mode", staying(0.9), words("mode", 0.2, "off"), 200, 6_000),
    ("lots-20/+0.6", lots(20, 0.4), add("x01", 0.6), 200, 6_000),
    ("lots-100/+0.8", lots(100, 0.3), add("x01", 0.8), 200, 6_000),
    ("steady/+0.4", steady, add("x01", 0.4), 200, 2_000),
    ("steady/*1.3", steady, times("x01", 1.3), 200, 2_000),
    ("steady/word", steady, words("word", 0.1, "fail"), 200, 2_000),
    ("steady/stuck", steady, stuck("x03"), 200, 2_000),
)


def drifts(seed, before=25, after=30):
    for name, of, change, window, reference_rows in DRIFTS:
        rng = np.random.default_rng([seed, sum(map(ord, name)), 14])
        reference, rows = of(rng, reference_rows), of(rng, window * (before + after))
        quiet = {key: values[: window * before] for key, values in rows.items()}
        late = {key: values[window * before :] for key, values in rows.items()}
        late = late | change(late, rng, window * after)
        yield Stream(name, reference, {key: np.concatenate([quiet[key], late[key]]) for key in reference}, window, before)

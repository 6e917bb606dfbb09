"""Judges made streams with `fleetctl drift replay`, and with what others use on the same rows. Prints a JSON array: a line for each stream and detector.

usage: bench.py FLEETCTL FIRST_SEED SEEDS WINDOWS LISTS DETECTORS

LISTS are some of `streams`, `wider`, `field` and `further`, separated by commas; DETECTORS are words of which a detector's name has one, or nothing for
all of them.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import field
import further
import numpy as np
import pictures
import streams
import wider
from scipy import stats


def numeric(stream):
    """The columns on which every other detector can be asked, without missing values."""
    for name, values in stream.reference.items():
        values, rows = np.asarray(values), np.asarray(stream.rows[name])
        if values.dtype.kind in "if" and rows.dtype.kind in "if":
            yield values[~np.isnan(values)], rows.astype(float)


def windows(rows, size):
    for start in range(0, len(rows), size):
        window = rows[start : start + size]
        yield window[~np.isnan(window)]


def any_column(stream, judge):
    """Windows in which `judge` says so of any column."""
    said = None
    for reference, rows in numeric(stream):
        of_column = np.array(list(judge(reference, rows, stream.window)))
        said = of_column if said is None else said | of_column
    count = -(-len(next(iter(stream.rows.values()))) // stream.window)
    return np.zeros(count, bool) if said is None else said


def ks_bonferroni(stream):
    columns = max(1, sum(1 for _ in numeric(stream)))

    def judge(reference, rows, size):
        for window in windows(rows, size):
            yield len(window) > 0 and stats.ks_2samp(reference, window).pvalue < 0.05 / columns

    return any_column(stream, judge)


def psi_values(stream):
    """The largest index of each window, of every column, words and missing values too: what it is not shown, it cannot be said to miss."""
    largest = np.zeros(-(-len(next(iter(stream.rows.values()))) // stream.window))
    for name in stream.reference:
        reference, rows = np.asarray(stream.reference[name]), np.asarray(stream.rows[name])
        if reference.dtype.kind in "iuf" and rows.dtype.kind in "iuf":
            known = reference[~np.isnan(reference)]
            edges = np.unique(np.quantile(known, np.linspace(0.1, 0.9, 9)))
            # Missing values are a bin of their own.
            code = lambda values, edges=edges: np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values))  # noqa: E731
            bins = len(edges) + 2
        else:
            reference, rows = reference.astype(str), rows.astype(str)
            words = {word: place for place, word in enumerate(np.unique(reference))}
            code = lambda values, words=words: np.array([words.get(value, len(words)) for value in values])  # noqa: E731
            bins = len(words) + 1
        share = lambda values, bins=bins: np.maximum(np.bincount(values, minlength=bins) / len(values), 1e-4)  # noqa: E731
        expected, codes = share(code(reference)), code(rows)
        for window, start in enumerate(range(0, len(codes), stream.window)):
            found = share(codes[start : start + stream.window])
            largest[window] = max(largest[window], np.sum((found - expected) * np.log(found / expected)))
    return largest


def psi(stream):
    return psi_values(stream) > 0.2


def psi_at_best(stream):
    """As if somebody had known of each stream which threshold lets its quiet windows pass, and not one drift more."""
    values = psi_values(stream)
    return values > max(0.2, values[: stream.onset].max())


def of_river(make):
    def detector(stream):
        def judge(reference, rows, size):
            scale = np.std(reference) or 1.0
            drift = make()
            for value in (reference - np.mean(reference)) / scale:
                drift.update(float(value))
            for window in windows((rows - np.mean(reference)) / scale, size):
                said = False
                for value in window:
                    drift.update(float(value))
                    said |= drift.drift_detected
                yield said

        return any_column(stream, judge)

    return detector


def sealift(fleetctl):
    def detector(stream):
        with tempfile.TemporaryDirectory() as directory:
            reference, rows = Path(directory, "reference.csv"), Path(directory, "rows.csv")
            write = pictures.write if "pictures" in stream.tags else streams.write
            write(stream.reference, reference)
            write(stream.rows, rows)
            command = [fleetctl, "drift", "replay", "--baseline", reference, "--data", rows, "--window", str(stream.window), "-o", "json"]
            if stream.period:
                command += ["--period", str(stream.period)]
            printed = subprocess.run(command, check=True, capture_output=True).stdout
        return np.array([window["verdict"] == "drift" for window in json.loads(printed)])

    return detector


def detectors(fleetctl, words):
    wanted = lambda name: not words or any(word in name for word in words)  # noqa: E731
    known = {
        "Sealift": sealift(fleetctl),
        "scipy KS, Bonferroni": ks_bonferroni,
        "PSI > 0.2": psi,
        "PSI, quiet by hindsight": psi_at_best,
    }
    if wanted("river ADWIN") or wanted("river Page-Hinkley"):
        from river import drift

        known["river ADWIN"] = of_river(lambda: drift.ADWIN(delta=0.002))
        known["river Page-Hinkley"] = of_river(drift.PageHinkley)
    if wanted("Evidently"):
        known["Evidently"] = evidently()
    return {name: detector for name, detector in known.items() if wanted(name)}


def evidently():
    # It would tell its makers that it was used.
    os.environ["DO_NOT_TRACK"] = "1"
    import pandas
    from evidently import Report
    from evidently.presets import DataDriftPreset

    def frame(columns):
        return pandas.DataFrame({name: list(values) for name, values in columns.items()})

    def detector(stream):
        reference, rows = frame(stream.reference), frame(stream.rows)
        said = []
        for start in range(0, len(rows), stream.window):
            snapshot = Report([DataDriftPreset()]).run(rows[start : start + stream.window], reference)
            said.append(snapshot.dict()["metrics"][0]["value"]["count"] > 0)
        return np.array(said)

    return detector


def is_quick(stream):
    """Evidently takes a second and more a window; it is shown what it can be shown in a few hours."""
    return stream.onset is not None and len(stream.reference) <= 12 and stream.window <= 500


def measure(task):
    """What each detector says of one stream: windows with an alarm before the drift and all of them, and the delay after it."""
    fleetctl, stream, with_evidently, words = task
    warnings.simplefilter("ignore")
    found = {}
    for name, detector in detectors(fleetctl, words).items():
        if name == "Evidently" and not (with_evidently and is_quick(stream)):
            continue
        said = detector(shorter(stream) if name == "Evidently" else stream)
        onset = len(said) if stream.onset is None else min(stream.onset, SHOWN_BEFORE) if name == "Evidently" else stream.onset
        late = np.flatnonzero(said[onset:])
        found[name] = {
            "alarms": int(said[:onset].sum()),
            "quiet": onset,
            "is_drift": stream.onset is not None,
            "delay": int(late[0]) if len(late) else None,
        }
    return found


SHOWN_BEFORE, SHOWN_AFTER = 10, 10


def shorter(stream):
    """The last quiet windows and the first drifted ones."""
    start = (stream.onset - min(stream.onset, SHOWN_BEFORE)) * stream.window
    end = (stream.onset + SHOWN_AFTER) * stream.window
    rows = {name: values[start:end] for name, values in stream.rows.items()}
    return dataclasses.replace(stream, rows=rows)


def tasks(fleetctl, seeds, quiet, kinds, words):
    for seed in seeds:
        for kind in kinds:
            for made in (kind.nulls(seed, quiet), kind.drifts(seed)):
                for stream in made:
                    yield kind.__name__, seed, stream, (fleetctl, stream, seed == seeds[0], words)


def main():
    fleetctl, first, count, quiet = sys.argv[1], *map(int, sys.argv[2:5])
    lists, words = sys.argv[5].split(","), [word for word in sys.argv[6].split(",") if word]
    kinds = [kind for kind in (streams, wider, field, further) if kind.__name__ in lists]
    seeds = range(first, first + count)
    found = []
    # One process a stream: its rows go with it.
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=20) as pool:
        waiting = collections.deque()

        def take():
            kind, seed, name, result = waiting.popleft()
            found.extend({"kind": kind, "seed": seed, "stream": name, "detector": detector} | of for detector, of in result.get().items())
            print(f"{kind} seed {seed}: {name}", file=sys.stderr)

        for kind, seed, stream, task in tasks(fleetctl, seeds, quiet, kinds, words):
            waiting.append((kind, seed, stream.name, pool.apply_async(measure, (task,))))
            if len(waiting) > 2 * os.cpu_count():
                take()
        while waiting:
            take()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

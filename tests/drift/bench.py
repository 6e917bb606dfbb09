"""Judges made streams with `fleetctl drift replay`, and with what others use on the same rows. Prints one JSON object.

usage: bench.py FLEETCTL FIRST_SEED SEEDS WINDOWS
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import streams
from scipy import stats

ALPHA = 0.001


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


def psi(stream):
    """On every column, words and missing values too: what it is not shown, it cannot be said to miss."""
    said = np.zeros(-(-len(next(iter(stream.rows.values()))) // stream.window), bool)
    for name in stream.reference:
        reference, rows = np.asarray(stream.reference[name]), np.asarray(stream.rows[name])
        if reference.dtype.kind in "iuf" and rows.dtype.kind in "iuf":
            known = reference[~np.isnan(reference)]
            edges = np.unique(np.quantile(known, np.linspace(0.1, 0.9, 9)))
            # Missing values are a bin of their own.
            code = lambda values, edges=edges: np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values))  # noqa: E731
            bins = len(edges) + 2
        else:
            words = {word: place for place, word in enumerate(np.unique(reference))}
            code = lambda values, words=words: np.array([words.get(value, len(words)) for value in values])  # noqa: E731
            bins = len(words) + 1
        share = lambda values, bins=bins: np.maximum(np.bincount(values, minlength=bins) / len(values), 1e-4)  # noqa: E731
        expected, codes = share(code(reference)), code(rows)
        for window, start in enumerate(range(0, len(codes), stream.window)):
            found = share(codes[start : start + stream.window])
            said[window] |= np.sum((found - expected) * np.log(found / expected)) > 0.2
    return said


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
            streams.write(stream.reference, reference)
            streams.write(stream.rows, rows)
            command = [fleetctl, "drift", "replay", "--baseline", reference, "--data", rows, "--window", str(stream.window), "-o", "json"]
            if stream.period:
                command += ["--period", str(stream.period)]
            printed = subprocess.run(command, check=True, capture_output=True).stdout
        return np.array([window["verdict"] == "drift" for window in json.loads(printed)])

    return detector


def detectors(fleetctl):
    known = {"Sealift": sealift(fleetctl), "scipy KS, Bonferroni": ks_bonferroni, "PSI > 0.2": psi}
    try:
        from river import drift

        known["river ADWIN"] = of_river(lambda: drift.ADWIN(delta=0.002))
        known["river Page-Hinkley"] = of_river(drift.PageHinkley)
    except ImportError as error:
        print(f"without river: {error}", file=sys.stderr)
    try:
        known["Evidently"] = evidently()
    except ImportError as error:
        print(f"without Evidently: {error}", file=sys.stderr)
    return known


def evidently():
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
            drifted = snapshot.dict()["metrics"][0]["value"]["count"]
            said.append(drifted > 0)
        return np.array(said)

    return detector


def main():
    fleetctl, first, seeds, quiet = sys.argv[1], *map(int, sys.argv[2:5])
    warnings.simplefilter("ignore")
    known = detectors(fleetctl)
    found = {name: defaultdict(list) for name in known}
    for seed in range(first, first + seeds):
        made = [(stream, True) for stream in streams.nulls(seed, quiet)]
        made += [(stream, False) for stream in streams.drifts(seed)]
        for stream, _ in made:
            for name, detector in known.items():
                # Evidently takes seconds a window; a few short streams show it.
                if name == "Evidently" and (seed != first or stream.onset is None or len(stream.reference) > 12):
                    continue
                said = detector(stream)
                onset = len(said) if stream.onset is None else stream.onset
                found[name]["quiet"].append((stream.name, int(said[:onset].sum()), onset))
                if stream.onset is not None:
                    late = np.flatnonzero(said[onset:])
                    found[name]["drift"].append((stream.name, int(late[0]) if len(late) else None))
            print(f"seed {seed}: {stream.name}", file=sys.stderr)
    json.dump({name: summary(of) for name, of in found.items()}, sys.stdout)


def summary(of):
    quiet = sum(windows for _, _, windows in of["quiet"])
    alarms = sum(alarms for _, alarms, _ in of["quiet"])
    delays = [delay for _, delay in of["drift"] if delay is not None]
    missed = sorted({name for name, delay in of["drift"] if delay is None})
    return {
        "quiet_windows": quiet,
        "false_alarms_per_1000": round(1000 * alarms / max(1, quiet), 2),
        "drifts": len(of["drift"]),
        "missed": len(of["drift"]) - len(delays),
        "mean_delay_windows": round(float(np.mean(delays)), 2) if delays else None,
        "missed_streams": missed,
    }


if __name__ == "__main__":
    main()

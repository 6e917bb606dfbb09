"""Prints where river's detectors find changes in the streams of a file: for each stream, four lists of places."""

import json
import sys

from river import drift


def found(detector, stream):
    places = []
    for place, value in enumerate(stream):
        detector.update(value)
        if detector.drift_detected:
            places.append(place)
    return places


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        streams = json.load(file)
    print(json.dumps([
        [
            found(drift.ADWIN(delta=0.002), stream),
            found(drift.ADWIN(delta=0.05), stream),
            found(drift.PageHinkley(delta=0.005, threshold=5), stream),
            found(drift.PageHinkley(delta=0.005, threshold=50), stream),
        ]
        for stream in streams
    ]))


main()

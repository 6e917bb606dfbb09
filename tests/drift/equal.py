"""Figures of scipy and NumPy on the counts that come in, as a JSON array of objects in their order.

Standard input is a JSON array of objects: `points` (rising), `reference` and `window` (counts at those points), `p_values`.
"""

import json
import sys

import numpy as np
from scipy import spatial, stats


def figures(case):
    points, reference, window = (np.asarray(case[name]) for name in ("points", "reference", "window"))
    p, q = reference / reference.sum(), window / window.sum()
    low, high = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    rows, seen = np.repeat(points, reference), np.repeat(points, window)
    both = stats.mannwhitneyu(seen, rows, use_continuity=False, method="asymptotic")
    size = len(rows) * len(seen)
    distance = stats.ks_2samp(rows, seen, method="asymp").statistic
    cuts = [(np.sum(reference[:end]), np.sum(window[:end])) for end in range(1, len(points))]
    found = {
        "psi": np.sum((high - low) * np.log(high / low)),
        "jensen_shannon": spatial.distance.jensenshannon(p, q, base=2) ** 2,
        "ks": distance,
        "ks_p": stats.kstwobign.sf(distance * np.sqrt(size / (len(rows) + len(seen)))),
        "wasserstein_sd": stats.wasserstein_distance(rows, seen) / np.std(rows),
        "linf": np.max(np.abs(p - q)),
        "cliffs_delta": 2.0 * both.statistic / size - 1.0,
        "benjamini_hochberg": list(stats.false_discovery_control(case["p_values"])),
        # Fisher's exact test on each cut, one-sided: whether the window has more.
        "rise": [
            stats.hypergeom.sf(hits - 1, len(rows) + len(seen), before + hits, len(seen)) for before, hits in cuts
        ],
    }
    # Bins in which either side has few are pooled by us before; here is what no pooling touches.
    table = np.array([reference, window])
    if np.all(table.sum(axis=0) > 0) and stats.contingency.expected_freq(table).min() >= 5.0:
        test = stats.chi2_contingency(table, correction=False)
        found |= {"chi_square": test.statistic, "chi_square_p": test.pvalue}
    return found


def main():
    found = [figures(case) for case in json.load(sys.stdin)]
    json.dump(found, sys.stdout, default=float)


if __name__ == "__main__":
    main()

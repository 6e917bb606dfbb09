"""Writes the same rows as pandas, pyarrow and numpy write them, and files that are no tables: formats.py DIRECTORY"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

into = Path(sys.argv[1])
random = np.random.default_rng(7)
rows = 1200

frame = pd.DataFrame({
    "size": random.normal(size=rows).astype(np.float32),
    "weight": random.gamma(2.0, size=rows),
    "count": random.integers(0, 9, rows),
    "gap": np.where(random.random(rows) < 0.1, np.nan, random.random(rows)),
    "colour": random.choice(["red", "green", "blue", "a;b,c"], rows),
    "is_new": random.random(rows) < 0.3,
    "constant": np.full(rows, 3),
    "prediction": random.choice(["cat", "dog"], rows),
    "confidence": random.random(rows).round(3),
})
frame.to_csv(into / "plain.csv", index=False)
frame.to_csv(into / "indexed.csv")
frame.to_csv(into / "semicolon.csv", index=False, sep=";", decimal=",")
frame.to_csv(into / "marked.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
frame.to_csv(into / "tabs.tsv", index=False, sep="\t")
frame.to_json(into / "rows.jsonl", orient="records", lines=True, double_precision=15)
frame.to_parquet(into / "pandas.parquet")
frame.set_index(pd.RangeIndex(5, rows + 5)).to_parquet(into / "indexed.parquet", index=True)
for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, into / f"{codec}.parquet", compression=codec, row_group_size=250)
table = pa.Table.from_pandas(frame.astype({"colour": "category"}), preserve_index=False)
pq.write_table(table, into / "dictionary.parquet", data_page_version="2.0")
pq.write_table(table, into / "plain-pages.parquet", use_dictionary=False, data_page_size=512, write_page_checksum=True)
small = pa.schema([("size", pa.float32()), ("weight", pa.float64()), ("count", pa.uint8()), ("gap", pa.float64()),
                   ("colour", pa.large_string()), ("is_new", pa.bool_()), ("constant", pa.decimal128(25, 2)),
                   ("prediction", pa.string()), ("confidence", pa.float64())])
pq.write_table(pa.Table.from_pandas(frame, preserve_index=False).cast(small), into / "types.parquet")
np.save(into / "records.npy", frame.astype({"colour": "U8", "prediction": "U4"}).to_records(
    index=False, column_dtypes={"colour": "U8", "prediction": "U4"}).view(np.ndarray))

# Numbers alone, as arrays in every order, and as tables with the same names.
matrix = random.normal(size=(600, 4)).astype(np.float32)
np.save(into / "matrix.npy", matrix)
np.save(into / "fortran.npy", np.asfortranarray(matrix))
np.save(into / "big.npy", matrix.astype(">f4"))
np.save(into / "double.npy", matrix.astype(np.float64))
numbers = pd.DataFrame(matrix, columns=["0", "1", "2", "3"])
numbers.to_csv(into / "matrix.csv", index=False)
numbers.to_parquet(into / "matrix.parquet")

# What is set aside, and what is refused.
times = frame[["size", "colour"]].assign(
    at=pd.date_range("2024-01-01", periods=rows, freq="h"), day=pd.date_range("2024-01-01", periods=rows, freq="h").date,
    clock=pd.date_range("2024-01-01", periods=rows, freq="h").time, row_id=[f"row-{n}" for n in range(rows)],
    blob=[bytes([0xFF, n % 256]) for n in range(rows)], nothing=pd.Series([None] * rows, dtype="object"))
times.to_parquet(into / "times.parquet")
nested = pa.table({"size": [1.0, 2.0], "tags": [["a"], ["b", "c"]], "where": [{"x": 1}, {"x": 2}]})
pq.write_table(nested, into / "nested.parquet")
pq.write_table(pa.table({"size": pa.array([], pa.float64())}), into / "empty.parquet")
whole = (into / "pandas.parquet").read_bytes()
(into / "cut.parquet").write_bytes(whole[: len(whole) // 2])
broken = bytearray((into / "plain-pages.parquet").read_bytes())
broken[len(broken) // 3] ^= 0xFF
(into / "damaged.parquet").write_bytes(broken)
np.save(into / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
np.savez(into / "stored.npz", matrix)
np.savez_compressed(into / "packed.npz", matrix)
np.savez_compressed(into / "many.npz", labels=matrix[:, 0], rows=matrix)
(into / "cut.npy").write_bytes((into / "matrix.npy").read_bytes()[:-7])
frame.to_pickle(into / "rows.csv.pkl")
frame.to_csv(into / "latin.csv", index=False, encoding="latin-1")
(into / "latin.csv").write_bytes((into / "latin.csv").read_bytes().replace(b"red", b"r\xe9d"))
frame.to_csv(into / "wide.csv", index=False, encoding="utf-16")
frame.to_csv(into / "packed.csv", index=False, compression="gzip")

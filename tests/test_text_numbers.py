"""Compiled parsing: bit for bit what Python's float and int make of every word; OBJ lines as a plain parser reads them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preprocess.compiled import compile_kernel
from preprocess.readers.obj import read_obj
from preprocess.readers.text_numbers import byte_classes, parse_numbers

ROOT = Path(__file__).parents[1]
INT64 = np.iinfo(np.int64)
BLANKS = st.text(" \t\r\n\v\f", min_size=1, max_size=3)

DIGITS = st.text("0123456789", max_size=22)
DECIMALS = st.builds(
    lambda sign, whole, point, part, exponent: f"{sign}{whole or '0'}{point and point + part}{exponent}",
    st.sampled_from(["", "-", "+"]),
    DIGITS,
    st.sampled_from(["", "."]),
    DIGITS,
    st.one_of(st.just(""), st.builds(lambda e, n: f"{e}{n}", st.sampled_from("eE"), st.integers(-350, 350))),
)
FLOATS = st.one_of(
    DECIMALS,
    st.floats().map(repr),
    st.floats(width=32).map(lambda x: f"{x:.6g}"),
    st.floats(-1e3, 1e3).map(lambda x: f"{x:.3f}"),
    st.floats(-1e3, 1e3).map(lambda x: f"{x:.17g}"),
    st.builds("{}e-{}".format, st.integers(2**53 - 9, 10**18 - 1), st.integers(1, 22)),
    st.sampled_from(["-0", "-0.0", ".5", "5.", "-.5E1", "9007199254740993", "1e23", "1e-23", "Infinity", "+inf"]),
)


@given(words=st.lists(FLOATS, max_size=40), blanks=st.lists(BLANKS, min_size=41, max_size=41))
@example(words=["90071992547409925e-1", "90071992547409935e-1", "999999999999999999e-22"], blanks=[" "] * 41)
@example(words=["1e22", "9007199254740992e-22", "12345678.12345678", "1234567.1234567"], blanks=[" "] * 41)
@settings(deadline=None, max_examples=150)
def test_floats_are_what_python_reads(words: list[str], blanks: list[str]) -> None:
    text = "".join(word + blank for word, blank in zip(words, blanks, strict=False))
    expected = np.array([float(word) for word in words])
    for ending in (text, text.rstrip()):
        np.testing.assert_array_equal(
            parse_numbers(ending.encode(), np.float64).view(np.int64), expected.view(np.int64), strict=True
        )


@given(
    words=st.lists(
        st.builds("{}{:0{}d}".format, st.sampled_from(["", "-", "+"]), st.integers(0, 10**20), st.integers(1, 25))
    )
)
@settings(deadline=None, max_examples=100)
def test_integers_are_what_python_reads(words: list[str]) -> None:
    expected = [min(max(int(word), INT64.min), INT64.max) for word in words]
    assert parse_numbers(" ".join(words).encode(), np.int64).tolist() == expected


@given(text=st.text("0123456789+-.eE_naif x/\0", max_size=30))
@settings(deadline=None, max_examples=300)
def test_garbage_is_refused_where_python_refuses_it(text: str) -> None:
    words = text.split(" ")
    for dtype, kind in ((np.float64, float), (np.int64, int)):
        try:
            values = [kind(word) for word in words if word]
            bad = any("_" in word for word in words)
        except ValueError:
            bad = True
        if bad:
            with pytest.raises(ValueError, match="expected numbers, found"):
                parse_numbers(text.encode(), dtype)
        else:
            expected = values if kind is float else [min(max(x, INT64.min), INT64.max) for x in values]
            np.testing.assert_array_equal(parse_numbers(text.encode(), dtype), np.array(expected, dtype))


def test_the_first_bad_word_is_named() -> None:
    with pytest.raises(ValueError, match=r"found '1\.5\.2'"):
        parse_numbers(b"1 2.5 nan 1.5.2 x", np.float64)
    with pytest.raises(ValueError, match=r"found '2\.5'"):
        parse_numbers(b"1 2.5 x", np.int64)


def test_many_words_and_many_left_words_find_room() -> None:
    values = np.random.default_rng(0).normal(size=20_000)  # 17 digits each: all are left to `float`
    text = " ".join(map(repr, values.tolist())).encode()
    np.testing.assert_array_equal(parse_numbers(text, np.float64), values)
    assert parse_numbers(b"1 " * 50_000, np.int64).sum() == 50_000


def test_only_the_given_part_of_a_text_is_read() -> None:
    text = memoryview(b"12345678" * 4)
    for start in range(9):
        for stop in range(start + 1, 20):
            assert parse_numbers(text[start:stop], np.int64).tolist() == [int(text[start:stop])]
            assert parse_numbers(text[start:stop], np.float64).tolist() == [float(text[start:stop])]


def test_separators_and_comments() -> None:
    classes = byte_classes(b" \t\r\n,", b"#")
    text = b"1,2, 3#4 5\n6,,7 #\r8#9"
    assert parse_numbers(text, np.int64, classes=classes).tolist() == [1, 2, 3, 6, 7, 8]


LINES = st.lists(
    st.one_of(
        st.tuples(*[st.floats(-1e3, 1e3)] * 3).map(lambda v: "v " + " ".join(map(repr, v))),
        st.tuples(*[st.floats(0, 1, width=32)] * 2).map(lambda v: "\tvt  " + "\t".join(map(str, v))),
        st.tuples(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=5), st.booleans()),
        st.sampled_from(["", "vn 0 0 1", "# v 1 2 3", "g v 1", "s off", "vp 1", "  ", "o f 1 2 3"]),
    ),
    max_size=40,
)


@given(lines=LINES, newline=st.sampled_from(["\n", "\r\n", "\r", " # f 1 2 3\n", "\n# \r\r\n"]))
@settings(deadline=None, max_examples=100)
def test_obj_lines_are_read_as_a_plain_parser_reads_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list, newline: str
) -> None:
    vertices, uv, triangles, text = [[0.0] * 3] * 9, [[0.0] * 2] * 9, [[0, 1, 2]], ["v 0 0 0"] * 9 + ["vt 0 0"] * 9
    corners_uv = [[0, 0, 0]]
    text.append("f 1/1 2/1 3/1")
    for line in lines:
        if isinstance(line, str):
            text.append(line)
            numbers = [float(word) for word in line.split()[1:] if line.strip().startswith(("v ", "vt "))]
            (vertices if line.startswith("v ") else uv).append(numbers) if numbers else None
            continue
        corners, from_the_end = line
        shift = (len(vertices) + 1, len(uv) + 1) if from_the_end else (0, 0)
        words = [f"{a - shift[0]}/{b - shift[1]}" if b else f"{a - shift[0]}//7" for a, b in corners]
        text.append("f " + " ".join(words))
        for k in range(1, len(corners) - 1):
            triangles.append([corners[i][0] - 1 for i in (0, k, k + 1)])
            corners_uv.append([corners[i][1] - 1 for i in (0, k, k + 1)])
    path = tmp_path_factory.mktemp("obj") / "a.obj"
    path.write_bytes(newline.join([*text, ""]).encode())
    mesh = read_obj(path)
    np.testing.assert_array_equal(mesh.vertices_mm, np.array(vertices, np.float32))
    np.testing.assert_array_equal(mesh.triangles, triangles)
    expected = np.array(uv, np.float32)[np.array(corners_uv)]
    expected[(np.array(corners_uv) < 0).any(axis=1)] = np.nan  # a corner without: no texture there
    np.testing.assert_array_equal(mesh.uv, expected)


def test_long_obj_rows_find_room(tmp_path: Path) -> None:
    polygon = " ".join(str(k) for k in range(1, 3001))
    rows = "".join(f"v {k / 3!r} 0 1e-30\n" for k in range(3000))
    (tmp_path / "a.obj").write_text(f"{rows}f {polygon}\n")
    mesh = read_obj(tmp_path / "a.obj")
    assert mesh.triangles.tolist() == [[0, k, k + 1] for k in range(1, 2999)]
    np.testing.assert_array_equal(mesh.vertices_mm[:, 0], (np.arange(3000) / 3).astype(np.float32))


PARSE = "import numpy as np; from preprocess.readers.text_numbers import parse_numbers; print(parse_numbers(b'1 2', np.int64))"


def test_processes_that_compile_at_once_share_one_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", PARSE], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [run.communicate()[0].split() for run in runs] == [[b"[1", b"2]"]] * 2
    assert list(tmp_path.rglob("*.nbi"))


def test_kernels_compile_where_nothing_can_be_kept() -> None:
    names: dict[str, Any] = {}
    exec(
        compile("def add_one(x): return x + 1", "<nowhere>", "exec"), names
    )  # Numba finds no folder for its machine code
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(names["add_one"])
    assert compile_kernel(names["add_one"])(1) == 2


def test_kernels_are_compiled_again_when_what_they_call_or_import_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    head = "from preprocess.compiled import compile_kernel\n"
    files = {
        "amounts": "AMOUNT = {amount}\n",
        "inner": f"from amounts import AMOUNT\n{head}@compile_kernel\ndef add(x): return {{factor}} * x + AMOUNT\n",
        "outer": f"from inner import add\n{head}@compile_kernel\ndef call(x): return add(x)\n",
    }
    found = []
    for time, (factor, amount) in enumerate([(1, 5), (1, 7), (3, 7), (3, 7)]):
        for name, text in files.items():
            changed = text.format(factor=factor, amount=amount)
            path = tmp_path / f"{name}.py"
            if not path.exists() or path.read_text() != changed:
                path.write_text(changed)
                os.utime(path, (time, time))
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        for name in files:
            module = importlib.import_module(name)
        found.append((module.call(1), sum(module.call.stats.cache_hits.values())))
    assert found == [(6, 0), (8, 0), (10, 0), (10, 1)]

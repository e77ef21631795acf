"""Reading examples, and their labels as numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt_edge.data.examples import (
    Columns,
    Example,
    default_columns,
    names_columns,
    read_examples,
    table_examples,
)
from gpt_edge.data.labels import balance, class_labels, class_numbers, label_sets, scores
from gpt_edge.data.tables import SkippedRows
from gpt_edge.errors import TrainingError

TEXT = Columns(("text",), "label")
CHOICE = default_columns("multiple-choice")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_has_quotes_line_breaks_and_a_byte_order_mark(tmp_path: Path) -> None:
    content = '\ufefftext,label\r\n"a, ""b""\nc",x\r\n\r\nd,y\r\n'
    found = read_examples(write(tmp_path / "a.csv", content), TEXT)
    assert found == [Example(2, ('a, "b"\nc',), "x"), Example(5, ("d",), "y")]


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    found = read_examples(write(tmp_path / "a.tsv", 'label\ttext\nx\t"a, b\r\n\ny\t"c" "\n'), TEXT)
    assert found == [Example(2, ('"a, b',), "x"), Example(4, ('"c" "',), "y")]


def test_json_lines_take_numbers_and_texts_as_labels(tmp_path: Path) -> None:
    found = read_examples(
        write(
            tmp_path / "a.jsonl",
            '{"text": "a", "label": 1, "more": []}\n\n{"text": "b", "label": "y"}',
        ),
        TEXT,
    )
    assert found == [Example(1, ("a",), "1"), Example(3, ("b",), "y")]


def test_answers_come_as_a_list_or_in_columns_and_the_context_from_several(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        json.dumps({"p": "It fell.", "ask": "cause", "choices": ["a", "b"], "gold": 1}),
    )
    assert read_examples(path, Columns(("p", "ask"), "gold", ("choices",))) == [
        Example(1, ("It fell. cause", "a", "b"), "1")
    ]
    table = write(tmp_path / "a.csv", "question,x,y,z,gold\nq,1,2,3,2\n")
    assert read_examples(table, Columns(("question",), "gold", ("x", "y", "z"))) == [
        Example(2, ("q", "1", "2", "3"), "2")
    ]


def test_the_format_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "text\tlabel\na\tx\n")
    with pytest.raises(TrainingError, match=r"a\.txt: cannot tell its format"):
        read_examples(path, TEXT)
    assert len(read_examples(path, TEXT, "tsv")) == 1


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("a.tsv", "text\tclass\na\tx\n", TEXT, "line 1: there is no column 'label'"),
        ("a.tsv", "text\tlabel\ttext\na\tx\tb\n", TEXT, "line 1: there are two columns 'text'"),
        ("a.tsv", "text\tlabel\na\tx\nb\n", TEXT, "line 3: 1 fields, the first line names 2"),
        ("a.tsv", "text\tlabel\n \tx\n", TEXT, "line 2: text is empty"),
        ("a.tsv", "text\tlabel\na\t \n", TEXT, "line 2: label is empty"),
        ("a.tsv", "text\tlabel\n", TEXT, "holds no example"),
        ("a.tsv", "", TEXT, "line 1: there is no column 'text'"),
        ("a.tsv", b"text\tlabel\na\tx\n\xff\ty\n", TEXT, "line 3: not UTF-8"),
        ("a.csv", 'text,label\na,x\n"b,y\n', TEXT, "line 3: not CSV"),
        ("a.csv", 'text,label\na,x\n"b"c,y\n', TEXT, "line 3: not CSV"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', TEXT, "line 2: not JSON"),
        ("a.jsonl", "[1]\n", TEXT, "line 1: expected a JSON object, got list"),
        ("a.jsonl", '{"text": 3, "label": 1}', TEXT, "line 1: text is 3, expected a string"),
        (
            "a.jsonl",
            '{"text": "a", "label": [1]}',
            TEXT,
            r"line 1: label is \[1\], expected a string or a number",
        ),
        ("a.jsonl", '{"text": "a"}', TEXT, "line 1: there is no 'label'"),
        (
            "a.jsonl",
            '{"text": "a", "label": NaN}',
            TEXT,
            "line 1: label is nan, expected a string or a finite number",
        ),
        ("a.jsonl", '{"text": "a", "label": "x\\ud800"}', TEXT, r"line 1: label holds '\\ud800'"),
        (
            "a.csv",
            'text,label\na,x\nb,"p\nq"\n',
            TEXT,
            r"line 3: label holds '\\n', which a bundle's label may not",
        ),
        (
            "a.tsv",
            f"text\tlabel\na\t{'x' * 1025}\n",
            TEXT,
            "line 2: label has 1,025 characters, expected at most 1,024",
        ),
        (
            "a.jsonl",
            '{"question": "a", "choices": ["b", "c"], "gold": 2}',
            CHOICE,
            "line 1: gold is '2', .* from 0 to 1",
        ),
        (
            "a.jsonl",
            '{"question": "a", "choices": ["b", "c"], "gold": "B"}',
            CHOICE,
            "line 1: gold is 'B'",
        ),
        (
            "a.jsonl",
            '{"question": "a", "choices": ["b"], "gold": 0}',
            CHOICE,
            "line 1: 1 answer, expected at least 2",
        ),
        (
            "a.jsonl",
            '{"question": "a", "choices": ["b", 1], "gold": 0}',
            CHOICE,
            "line 1: an answer in choices is 1, expected a string",
        ),
    ],
)
def test_a_fault_is_reported_with_its_line_number(
    tmp_path: Path, name: str, content: str | bytes, columns: Columns, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        read_examples(write(tmp_path / name, content), columns)
    assert name in caught.value.message
    assert "\n" not in caught.value.message


def test_a_field_may_be_as_long_as_a_book_and_numbers_are_compared_by_value(
    tmp_path: Path,
) -> None:
    long = "word " * 60_000
    assert read_examples(write(tmp_path / "a.csv", f'text,label\n"{long}",x\n'), TEXT)[0].texts == (
        long,
    )
    lines = "".join(f'{{"text": "a", "label": {label}}}\n' for label in ("1", "1.0", '"1"', "1.5"))
    found = read_examples(write(tmp_path / "a.jsonl", lines), TEXT)
    assert [example.label for example in found] == ["1", "1", "1", "1.5"]


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a regular file"):
        read_examples(tmp_path, TEXT, "tsv")
    with pytest.raises(TrainingError, match="cannot read"):
        read_examples(tmp_path / "none.tsv", TEXT)


def test_labels_are_ordered_as_numbers_or_letters_and_counted() -> None:
    examples = [Example(i, ("a",), label) for i, label in enumerate(["10", "9", "9"])]
    assert class_labels(Path("x"), examples) == ("9", "10")
    assert class_labels(Path("x"), [Example(1, ("a",), "b"), Example(2, ("a",), "10")]) == (
        "10",
        "b",
    )
    with pytest.raises(TrainingError, match="x: every example has the label '9'"):
        class_labels(Path("x"), examples[1:])
    with pytest.raises(TrainingError, match="x: 20,000 different labels, expected at most 16,384"):
        class_labels(Path("x"), [Example(i, ("a",), f"text {i}") for i in range(20_000)])
    assert balance(examples) == {"9": 2, "10": 1}
    assert class_numbers(Path("x"), examples, ("9", "10")) == [1, 0, 0]
    with pytest.raises(TrainingError, match="x, line 0: label '10' does not occur"):
        class_numbers(Path("x"), examples, ("9",))


@pytest.mark.parametrize("label", ["5.1", "-1", "nan", "inf", "high"])
def test_a_score_outside_of_its_range_is_refused(label: str) -> None:
    good = Example(4, ("a", "b"), "5.0")
    assert scores(Path("x"), [good], (0, 5)) == [5.0]
    with pytest.raises(TrainingError, match="x, line 7: score"):
        scores(Path("x"), [good, Example(7, ("a", "b"), label)], (0, 5))


def test_the_shared_sets_read_as_they_are_described(shared_data: Path) -> None:
    tasks = shared_data / "tasks"
    counts = {
        "classification/banking77/train.csv": (Columns(("text",), "category"), 10_003),
        "classification/banking77/test.part.csv": (Columns(("text",), "category"), 1_540),
        "classification/sentiment-sentences/train.tsv": (TEXT, 2_089),
        "classification/sentiment-sentences/dev.tsv": (TEXT, 447),
        "entailment/snli/dev.tsv": (default_columns("entailment"), 9_842),
        "entailment/snli/test.part.tsv": (default_columns("entailment"), 6_874),
        "entailment/med/med.part.tsv": (default_columns("entailment"), 4_598),
        "similarity/sts-images/train.tsv": (default_columns("similarity", is_score=True), 1_077),
        "similarity/sts-images/dev.tsv": (default_columns("similarity", is_score=True), 192),
        "multiple-choice/arc-easy/train.jsonl": (CHOICE, 2_251),
        "multiple-choice/arc-easy/test.part.jsonl": (CHOICE, 1_668),
        "multiple-choice/balanced-copa/part.jsonl": (
            Columns(("premise", "asks_for"), "gold", ("choices",)),
            850,
        ),
    }
    assert {
        name: len(read_examples(tasks / name, columns)) for name, (columns, _) in counts.items()
    } == {name: n for name, (_, n) in counts.items()}


def test_csv_may_be_separated_by_semicolons(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text;label\n"a; b, c";x\nd, e;y\n')
    found = [(example.texts, example.label) for example in read_examples(path, TEXT)]
    assert found == [(("a; b, c",), "x"), (("d, e",), "y")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_in_quotes_may_have_any_separator(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'\ufeff"text"{separator}"label"\r\n"a, b; c"{separator}"x"\r\n', "utf-8")
    (example,) = read_examples(path, Columns(("text",)))
    assert (example.texts, example.label) == (("a, b; c",), "x")
    with pytest.raises(TrainingError, match="there is no column 'body'") as caught:
        read_examples(path, Columns(("body",)))
    assert caught.value.hint == "its columns: text, label"


def test_a_comma_counts_before_a_semicolon(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,a;b\nx;y,1,z\n")
    assert read_examples(path, TEXT)[0].texts == ("x;y",)


def test_a_missing_column_lists_those_of_the_separator_that_splits(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no column 'text'") as caught:
        read_examples(write(tmp_path / "a.csv", "review;stars\nfine;5\n"), TEXT)
    assert caught.value.hint == "its columns: review, stars"


def test_several_columns_are_joined_to_one_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "title,body,label\nHi,there,x\n,only body,y\n")
    columns = Columns(("title", "body"), is_joined=True)
    assert [example.texts for example in read_examples(path, columns)] == [
        ("Hi there",),
        ("only body",),
    ]
    empty = write(tmp_path / "b.csv", "title,body,label\n, ,x\n")
    with pytest.raises(TrainingError, match="line 2: title and body are empty"):
        read_examples(empty, columns)


def test_bad_rows_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    content = "text,label\na,x\nb,\n,y\nc,x,more\nd\ne,y\n"
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(TrainingError, match="line 3: label is empty"):
        read_examples(path, TEXT)
    skipped = SkippedRows()
    assert [example.texts[0] for example in read_examples(path, TEXT, None, skipped)] == ["a", "e"]
    assert skipped.count == 4
    assert str(skipped) == (
        "skipped 4 bad rows: line 3: label is empty; line 4: text is empty; "
        "line 5: 3 fields, the first line names 2 columns; ..."
    )
    lines = '{"text": "a", "label": "x"}\n{"text": "b", "label": null}\n{"text": 1}\nno\n'
    skipped = SkippedRows()
    found = read_examples(write(tmp_path / "a.jsonl", lines), TEXT, None, skipped)
    assert (len(found), skipped.count) == (1, 3)
    with pytest.raises(TrainingError, match="holds no example; skipped 1 bad row"):
        read_examples(write(tmp_path / "b.csv", "text,label\nb,\n"), TEXT, None, SkippedRows())


def test_a_table_without_labels_gives_its_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,text\n1,a\n2,b\n")
    assert [example.texts for example in table_examples(path, TEXT, "csv")] == [("a",), ("b",)]
    labelled = write(tmp_path / "b.csv", "text;label\na;x\nb;\n")
    assert len(list(table_examples(labelled, TEXT, "csv"))) == 2
    assert names_columns(write(tmp_path / "c.tsv", "id\ttext\n1\ta\n"), TEXT)
    assert not names_columns(write(tmp_path / "d.tsv", "premise\thypothesis\n"), TEXT)


def test_several_labels_stand_in_a_list_or_between_separators(tmp_path: Path) -> None:
    columns = Columns(("text",), separator="|")
    table = write(tmp_path / "a.csv", "text,label\none,a| b |a\ntwo,\nthree,c\n")
    found = read_examples(table, columns)
    assert [example.labels for example in found] == [("a", "b"), (), ("c",)]
    rows = [{"text": "one", "label": ["b", 2]}, {"text": "two", "label": []}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    found = read_examples(write(tmp_path / "a.jsonl", lines), columns)
    assert [example.labels for example in found] == [("b", "2"), ()]
    assert class_labels(tmp_path, found, several=True) == ("2", "b")
    assert label_sets(tmp_path, found, ("b", "x", "2")) == [[1, 0, 1], [0, 0, 0]]
    assert balance(found) == {"b": 1, "2": 1}
    with pytest.raises(TrainingError, match="line 1: label '2' does not occur"):
        label_sets(tmp_path, found, ("b",))
    with pytest.raises(TrainingError, match="no example has a label"):
        class_labels(tmp_path, found[1:], several=True)
    wrong = write(tmp_path / "b.jsonl", '{"text": "one", "label": 3}\n')
    with pytest.raises(TrainingError, match="line 1: label is 3, expected a list of labels"):
        read_examples(wrong, columns)

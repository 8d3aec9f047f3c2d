import gzip
from pathlib import Path

import numpy as np
import pytest

from stream_trainer.errors import UsageError
from tests.bench.learning import catalogue, folder


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_csv_of_a_folder_is_found_and_nothing_else(tmp_path: Path) -> None:
    for name in ("B.csv", "a.csv.gz", "README.md"):
        write(tmp_path / name, "x,y\n1,2\n")
    assert list(folder.names(tmp_path)) == ["b", "a"]
    names = [source.name for source in catalogue.sources(tmp_path)]
    assert names[:2] == ["b", "a"]
    assert names[2:] == [source.name for source in catalogue.sources(None)]


def test_a_column_called_class_is_the_label_wherever_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv.gz", "a,Class,colour\n1.5,UP,red\n,DOWN,blue\n2,UP,\n")
    stream = folder.load("s", path, 10)
    assert (stream.task, stream.classes, stream.y.tolist()) == ("binary", ("DOWN", "UP"), [1.0, 0.0, 1.0])
    assert [(c.name, c.words) for c in stream.columns] == [("x_a", None), ("x_colour", ("", "blue", "red"))]
    assert np.isnan(stream.x[1, 0])


def test_without_such_a_name_the_last_column_is_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(9)))
    stream = folder.load("s", path, 6)
    assert (stream.task, stream.classes, stream.rows) == ("multiclass", ("0", "1", "2"), 6)
    assert stream.x[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_label_of_numbers_is_a_number(tmp_path: Path) -> None:
    stream = folder.load("s", write(tmp_path / "s.csv", "a,target\n1,0.5\n2,3\n"), 10)
    assert (stream.task, stream.y.tolist()) == ("regression", [0.5, 3.0])


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    stream = folder.load("s", write(tmp_path / "s.csv", "a,target\n1,0\n2,\n3,1\n"), 10)
    assert stream.x[:, 0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("text", ["target\n1\n2\n", "a,target\n1,1\n2,1\n", "a,target\n", "a,b\n1\n"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"s\.csv"):
        folder.load("s", write(tmp_path / "s.csv", text), 10)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        folder.names(tmp_path / "nothing")

"""What the state file is trusted with, and which folders are left alone."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra import broker
from infra import broker_files as files
from infra.broker_files import State
from infra.java import Java
from stream_trainer.errors import SetupError, UsageError

NO_JAVA = Java(home=Path("/nonexistent"), executable=Path("/nonexistent/java"), version=17, source="PATH")


def state_of(process: psutil.Process) -> State:
    return State(port=1, controller_port=2, pid=process.pid, created=process.create_time())


def test_a_state_survives_the_file_and_a_torn_file_counts_as_none(tmp_path: Path) -> None:
    state = State(port=9092, controller_port=9093, pid=1, created=2.5)
    files.write_state(tmp_path, state)
    assert files.read_state(tmp_path) == state

    (tmp_path / "broker.json").write_text('{"port": 90')
    assert files.read_state(tmp_path) is None


def test_a_stale_process_id_is_not_a_broker(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    files.write_state(tmp_path, State(port=1, controller_port=2, pid=gone.pid, created=time.time()))

    assert broker.status(tmp_path) is None
    assert not broker.stop(tmp_path)


def test_a_process_id_that_another_program_has_now_is_neither_found_nor_stopped(tmp_path: Path) -> None:
    me = psutil.Process()
    files.write_state(tmp_path, state_of(me))

    assert broker.status(tmp_path) is None
    assert not broker.stop(tmp_path)
    assert me.is_running()


def test_a_kafka_on_another_folder_is_not_ours(tmp_path: Path) -> None:
    wait = "import sys; print('up', flush=True); sys.stdin.read()"
    arguments = [sys.executable, "-c", wait, "kafka.Kafka", str(tmp_path / "other" / "server.properties")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"  # before that it may not be exec'ed: its command line is empty
        state = state_of(psutil.Process(other.pid))

        assert files.running_process(tmp_path, state) is None
        assert files.running_process(tmp_path / "other", state) is not None


def test_data_without_its_identity_is_left_alone(tmp_path: Path) -> None:
    topic = tmp_path / "data" / "examples-0"
    topic.mkdir(parents=True)

    with pytest.raises(SetupError, match=r"no meta\.properties.*left untouched"):
        broker.start(tmp_path, NO_JAVA, [])

    assert topic.is_dir()


def test_a_half_formatted_folder_is_formatted_again(tmp_path: Path) -> None:
    (tmp_path / "data.new" / "__cluster_metadata-0").mkdir(parents=True)

    assert not files.check_folder(tmp_path)


def test_a_comma_in_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comma"):
        files.check_folder(tmp_path / "a,b")


def test_ports_are_kept_while_they_are_free() -> None:
    first = files.choose_ports(None)
    assert first.port != first.controller_port
    assert files.choose_ports(first) == first

    with socket.create_server(("127.0.0.1", first.port)):
        moved = files.choose_ports(first)
    assert moved.port != first.port
    assert moved.controller_port == first.controller_port


def test_the_configuration_binds_loopback_only(tmp_path: Path) -> None:
    written = files.write_configuration(tmp_path, State(port=1, controller_port=2), data=tmp_path / "data").read_text()

    listeners = [line for line in written.splitlines() if "listeners=" in line]
    assert len(listeners) == 2
    assert all(line.count("127.0.0.1") == line.count("://") == 2 for line in listeners)
    assert f"message.max.bytes={16 * 2**20}" in written

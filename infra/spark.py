"""The only place that starts Spark: a quiet, small session with the Kafka connector on its class path.

One session a process. The JVM ends with the driver: it reads the pipe that this process holds open. Temporary files
live in one folder, which `stop_session` removes.
"""

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyspark
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from infra.jars import ensure_jars
from infra.java import find_java
from stream_trainer.settings import Settings, environment, exported

_JVM_EXIT_SECONDS = 20.0
_CHATTY = "transform_with_state_driver_worker"
_folders: WeakKeyDictionary[SparkContext, str] = WeakKeyDictionary()

# Spark keeps the history of its UI in the driver even when the UI is off: without limits a driver grows for ever.
_SHORT_MEMORY = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.retainedJobs": "20",
    "spark.ui.retainedStages": "20",
    "spark.ui.retainedTasks": "200",
    "spark.ui.retainedDeadExecutors": "1",
    "spark.sql.ui.retainedExecutions": "10",
    "spark.sql.streaming.ui.enabled": "false",
    "spark.sql.streaming.ui.retainedQueries": "1",
    "spark.sql.streaming.ui.retainedProgressUpdates": "5",
    "spark.sql.streaming.numRecentProgressUpdates": "5",
}
_BEHAVIOUR = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "20000",
    "spark.python.daemon.module": "stream_trainer.worker_daemon",
    "spark.python.worker.reuse": "true",
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}
# Hadoop's usual local file system runs `chmod` and `readlink` as processes, several for each file of a checkpoint:
# 80 of the 500 ms of a micro-batch. This one renames as atomically and starts none. Not for the whole of Spark, which
# relies on the other one elsewhere.
_CHECKPOINT_FILES = {
    "fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "fs.file.impl.disable.cache": "true",
}


def build_session(settings: Settings, app_name: str, *, extra: Mapping[str, str] | None = None) -> SparkSession:
    """Start Spark as the settings say; `extra` overrides any of the options below.

    Raises:
        SetupError: no Java runs here, or the connector's jars could not be had.
    """
    java = find_java(settings.cache_dir)
    jars = ensure_jars(settings, "spark")
    work = tempfile.mkdtemp(prefix="stream-trainer-spark-")
    options = {
        "spark.master": settings.trainer.spark_master,
        "spark.driver.memory": settings.trainer.spark_driver_memory,
        "spark.driver.extraJavaOptions": _jvm_options(work),
        "spark.jars": ",".join(str(jar) for jar in jars),
        "spark.sql.warehouse.dir": f"{work}/warehouse",
        "spark.local.dir": work,
        **_SHORT_MEMORY,
        **_BEHAVIOUR,
        **{name: value for name, value in (extra or {}).items() if name not in _CHECKPOINT_FILES},
    }
    with exported(_variables(java.home, _worker_python(Path(work)))):
        conf = SparkConf(loadDefaults=False).setAppName(app_name).setAll(list(options.items()))
        try:
            context = SparkContext(conf=conf, gateway=launch_gateway(conf))  # type: ignore[no-untyped-call]
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    _folders[context] = work
    server = context._accumulatorServer  # noqa: SLF001 - its one connection breaks with the JVM, and it is loud about it
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    session = SparkSession(context)
    for name, value in _CHECKPOINT_FILES.items():
        session.conf.set(name, (extra or {}).get(name, value))
    return session


def warm_up(session: SparkSession) -> None:
    """Run one empty job through a Python worker: the first job of a session would wait seconds for all of that."""

    def nothing(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return iter(batches)

    session.range(1, numPartitions=1).mapInArrow(nothing, "id long").toArrow()


def stop_session(session: SparkSession) -> None:
    """Stop Spark, its JVM and its Python workers, and remove the temporary folder; returns when all are gone.

    A JVM that has ended by itself is no error here: it cannot be asked anything, and what is left is removed.
    """
    context = session.sparkContext
    gateway = context._gateway  # noqa: SLF001 - pyspark has no public way
    if gateway is None or gateway.proc.poll() is None:
        session.stop()
    else:
        gateway._gateway_client.is_connected = False  # noqa: SLF001 - nothing is sent any more, which py4j would log
        context._jsc = None  # noqa: SLF001
        context.stop()
        SparkSession._instantiatedSession = None  # noqa: SLF001
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001 - so that a later session starts a JVM of its own
    if gateway is not None:
        with suppress(Py4JError, OSError):
            gateway.shutdown()
        with suppress(OSError):
            gateway.proc.stdin.close()
        gateway.proc.wait(_JVM_EXIT_SECONDS)
    work = _folders.pop(context, None)
    if work is not None:
        shutil.rmtree(work, ignore_errors=True)


def _jvm_options(work: str) -> str:
    log4j = Path(str(files("infra").joinpath("spark_log4j2.properties"))).as_uri()
    return f"-XX:+UseSerialGC -Xss4m -Djava.io.tmpdir={work} -Dlog4j2.configurationFile={log4j}"


def _worker_python(work: Path) -> str:
    """What workers are started with: this Python, whose first process of each stateful query is told to print nothing.

    pyspark prints five lines at each start of such a query, which Spark copies to the standard error of the driver.
    """
    path, python = work / "python", shlex.quote(sys.executable)
    path.write_text(f'#!/bin/sh\ncase "$2" in *.{_CHATTY}) exec {python} "$@" >/dev/null ;; esac\nexec {python} "$@"\n')
    path.chmod(0o700)
    return str(path) if os.access(path, os.X_OK) else sys.executable  # a folder may forbid to run what is in it


def _variables(java_home: Path, python: str) -> dict[str, str | None]:
    """What Spark takes from the environment alone; whatever another Spark on this machine has left there is hidden."""
    paths = [path for path in sys.path if path and Path(path).is_dir()]
    return {
        "JAVA_HOME": str(java_home),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_CONF_DIR": None,
        "SPARK_LOCAL_DIRS": None,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": None,
        "PYSPARK_GATEWAY_PORT": None,
        # glibc gives each of a JVM's many threads a heap of its own for what is not Java's, RocksDB's memory for one.
        "MALLOC_ARENA_MAX": environment().get("MALLOC_ARENA_MAX", "2"),
        "PYSPARK_PYTHON": python,
        "PYTHONPATH": ":".join([*paths, *filter(None, [environment().get("PYTHONPATH")])]),
    }

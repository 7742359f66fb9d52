"""Spark MLlib: logistic regression by L-BFGS, on two threads of one Java virtual machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import SparkSession
from pyspark.sql.types import ByteType, StructField, StructType

from benchmarks.race._problem import LABEL, Problem
from benchmarks.race._side import Config, Side, Step, anew


def missing() -> str | None:
    """Why it cannot run here, where it cannot."""
    return None if shutil.which("java") or os.environ.get("JAVA_HOME") else "pyspark needs Java, and there is none"


class Spark(Side):
    """Rows in memory are a cached DataFrame of vectors."""

    name = "Spark MLlib, LogisticRegression"
    package = "pyspark"

    @classmethod
    def grid(cls, problem: Problem) -> list[Config]:
        return [{}, {"maxBlockSizeInMB": 4.0}, {"maxBlockSizeInMB": 16.0}]

    def open(self) -> None:
        settings = {
            "spark.driver.memory": "8g",
            "spark.ui.enabled": "false",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            "spark.local.dir": self.scratch,
            "spark.log.level": "ERROR",
        }
        builder = SparkSession.builder.master("local[2]").appName("race")
        for key, value in settings.items():
            builder = builder.config(key, value)
        self.spark = builder.getOrCreate()

    def prepare(self) -> None:
        # With a start in memory too: what counts there begins with the cache.
        frame = self._sparse() if self.problem.is_sparse else self._dense()
        self.frame = frame.select("features", LABEL).cache()
        self.frame.count()

    def _dense(self) -> Any:
        names = [str(j) for j in range(self.problem.n_features)]
        frame = self.spark.read.parquet(*self.problem.parts)
        return VectorAssembler(inputCols=names, outputCol="features").transform(frame)

    def _sparse(self) -> Any:
        """Lists of indices and values put into files of the form in which Spark keeps sparse vectors."""
        folder = os.path.join(self.scratch, f"vectors-{self.problem.n_rows}")
        os.makedirs(folder, exist_ok=True)
        for path in self.problem.parts:
            pq.write_table(_vectors(pq.read_table(path), self.problem.n_features), _inside(folder, path))
        schema = StructType([StructField("features", VectorUDT()), StructField(LABEL, ByteType())])
        return self.spark.read.schema(schema).parquet(folder)

    def steps(self, config: Config) -> Iterator[Step]:
        def fit(passes: int) -> Any:
            return LogisticRegression(
                labelCol=LABEL, maxIter=passes, regParam=self.problem.alpha, standardization=False, tol=1e-12,
                family="binomial" if self.problem.n_classes == 2 else "multinomial", **config,
            ).fit(self.frame)  # fmt: skip

        def model(fitted: Any) -> Any:
            return fitted.coefficientMatrix.toArray(), fitted.interceptVector.toArray()

        return anew(fit, model, _iterations)

    def close(self) -> None:
        self.spark.stop()


def _iterations(model: Any) -> int:
    return max(1, int(model.summary.totalIterations))


def _inside(folder: str, path: str) -> str:
    return os.path.join(folder, os.path.basename(path))


def _vectors(table: pa.Table, n_features: int) -> pa.Table:
    n = len(table)
    values = table["values"].combine_chunks().cast(pa.list_(pa.float64()))
    fields = {
        "type": pa.array(np.zeros(n, np.int8)),
        "size": pa.array(np.full(n, n_features, np.int32)),
        "indices": table["indices"].combine_chunks(),
        "values": values,
    }
    return pa.table({"features": pa.StructArray.from_arrays(fields.values(), list(fields)), LABEL: table[LABEL]})

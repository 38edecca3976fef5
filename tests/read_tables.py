#!/usr/bin/env python3
"""Adds up the tables `charges` and `usage` of a lake by tenant, with a reader that knows nothing of weir.

usage: read_tables.py duckdb|chdb|pyspark LAKE
Only files that the commit log names count. Prints `total TENANT BILLED QUANTITY`, the cost with twelve digits.
"""

import glob
import json
import os
import sys


def files(lake, table):
    named = []
    for path in sorted(glob.glob(os.path.join(lake, "_commits", "*.json"))):
        commit = json.load(open(path))["commit"]
        named += [os.path.join(lake, entry["path"]) for entry in commit["tables"].get(table, [])]
    return named


def duckdb(charges, usage):
    import duckdb as db

    one = lambda paths, sql: db.sql(sql.format(paths=paths)).fetchall()
    costs = one(charges, "select tenant, cast(sum(billed_cost) as varchar) from read_parquet({paths}, hive_partitioning=false) group by tenant")
    used = one(usage, "select tenant, cast(sum(quantity) as varchar) from read_parquet({paths}, hive_partitioning=false) group by tenant")
    return dict(costs), dict(used)


def chdb(charges, usage):
    import chdb as db

    def one(paths, column):
        sums = {}
        for path in paths:
            sql = f"select tenant, toString(sum(toDecimal256({column}, 12))) from file('{path}', Parquet) group by tenant"
            for line in str(db.query(sql, "TSV")).splitlines():
                tenant, value = line.split("\t")
                whole, _, fraction = value.partition(".")
                sums[tenant] = sums.get(tenant, 0) + int(whole) * 10**12 + int((fraction + "0" * 12)[:12])
        return sums

    costs = {t: f"{v // 10**12}.{v % 10**12:012}" for t, v in one(charges, "billed_cost").items()}
    used = {t: str(v // 10**12) for t, v in one(usage, "quantity").items()}
    return costs, used


def pyspark(charges, usage):
    from pyspark.sql import SparkSession, functions

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")

    def one(paths, column):
        frame = spark.read.parquet(*paths)
        rows = frame.groupBy("tenant").agg(functions.sum(column).cast("string").alias("sum")).collect()
        return {row["tenant"]: row["sum"] for row in rows}

    return one(charges, "billed_cost"), one(usage, "quantity")


def digits(cost):
    whole, _, fraction = cost.partition(".")
    return f"{whole}.{(fraction + '0' * 12)[:12]}"


def main():
    reader, lake = sys.argv[1:]
    costs, used = {"duckdb": duckdb, "chdb": chdb, "pyspark": pyspark}[reader](files(lake, "charges"), files(lake, "usage"))
    for tenant in sorted(costs):
        print("total", tenant, digits(costs[tenant]), used[tenant].partition(".")[0])


main()

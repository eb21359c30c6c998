"""Assignment of a hundred million users: Parquet shards in and out, on one machine or with Ray."""

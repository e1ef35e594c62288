"""Runs a command with an S3 server beside it, moto's, that has an empty bucket `bucket`:

    python .ci/with_moto.py COMMAND…

The command finds the server by its environment, as it would find any other.
"""

import logging
import os
import subprocess
import sys

import boto3
from moto.server import ThreadedMotoServer

# A line a request is too much to read.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
settings = {
    "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    "AWS_ACCESS_KEY_ID": "keeper",
    "AWS_SECRET_ACCESS_KEY": "lamp",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
os.environ.update(settings)
boto3.client("s3").create_bucket(Bucket="bucket")
code = subprocess.run(sys.argv[1:]).returncode
server.stop()
sys.exit(code)

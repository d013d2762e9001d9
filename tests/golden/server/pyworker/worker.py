"""PyWorker for vast.ai, in front of podkiln's server image. Rendered by podkiln.

Put it with benchmark.json and requirements.txt into the repository that PYWORKER_REPO names, at the commit that
PYWORKER_REF pins. The template's on-start script starts the image with a log that is new at each start, and then
vast.ai's start_server.sh, which runs this file (podkiln's docs/how-to/load-balancing-endpoint.md has the script):

    SERVE_HOST=127.0.0.1 /start.sh >/var/log/podkiln-serve.log 2>&1 &
"""

import json
import sys
from pathlib import Path

from vastai.serverless.server.worker import (
    BenchmarkConfig,
    HandlerConfig,
    LogActionConfig,
    Worker,
    WorkerConfig,
)

BENCHMARK = Path(__file__).with_name("benchmark.json")
SERVER = "http://127.0.0.1"
PORT = 8000


def benchmark() -> dict:
    """Read the request that each worker runs once it is ready: its time is what vast.ai scales by.

    Give it the size and steps that your clients ask for.
    """
    try:
        return json.loads(BENCHMARK.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{BENCHMARK}: the benchmark's request cannot be read: {error}; write one for /generate.")


Worker(
    WorkerConfig(
        model_server_url=SERVER,
        model_server_port=PORT,
        model_log_file="/var/log/podkiln-serve.log",
        model_healthcheck_url=f"{SERVER}:{PORT}/ping",
        handlers=[
            HandlerConfig(
                route="/generate",
                allow_parallel_requests=False,  # one at a time, as in the image
                max_queue_time=300.0,  # seconds; beyond it, PyWorker answers 429
                workload_calculator=lambda _: 100.0,  # each request counts the same
                benchmark_config=BenchmarkConfig(dataset=[benchmark()], runs=1, concurrency=1),
            ),
            HandlerConfig(
                route="/v1/images/generations",
                allow_parallel_requests=False,  # one at a time, as in the image
                max_queue_time=300.0,  # seconds; beyond it, PyWorker answers 429
                workload_calculator=lambda _: 100.0,  # each request counts the same
            ),
        ],
        log_action_config=LogActionConfig(
            on_load=["podkiln: ready for jobs"],
            on_error=[
                "podkiln: not ready for jobs",
                "so the pod stops",
            ],
        ),
    )
).run()

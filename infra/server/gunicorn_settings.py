"""Configure gunicorn in the container of the API. It reads PORT, and WEB_CONCURRENCY, the number of processes, itself.

A process serves each request in a thread, most of which wait for a reply. A process that is stopped finishes its
requests, for longer than any of them waits.
"""

from chalicelib.components import MAX_CONNECTIONS
from chalicelib.settings import MAX_WAIT_S

wsgi_app = "infra.server.wsgi:create_application()"
worker_class = "gthread"
threads = MAX_CONNECTIONS
worker_connections = 2 * MAX_CONNECTIONS  # the others wait for a thread, or for the next request of their client
keepalive = 75  # longer than a load balancer keeps idle connections, 60 s by default, or it would use a closed one
graceful_timeout = int(MAX_WAIT_S) + 7
worker_tmp_dir = "/dev/shm"  # noqa: S108 - the file system of the container is read-only
control_socket_disable = True
loglevel = "warning"  # the API logs each request

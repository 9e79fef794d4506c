"""HTTP: requests, headers, responses, middleware and the events of queues."""
